/*
 * What CPUs can reach, found out before anything is proved, as `learning.py` does it but in the order in which
 * states are met: when more is known, only those states are followed anew whose set is none any more.
 */

/*
 * What lacks is asked for many at a time, as a call of Python's costs as much as a hundred states. A state that
 * lacks something is put aside, and others are followed meanwhile. Of each action one state is asked about: most
 * likely the answer holds for the others, which is why few of them are put aside. `questions`: of each its kind,
 * two numbers, how many cells of a part, and what is in them.
 */
#define MOST_QUESTIONS 64u
static u32 questions[MOST_QUESTIONS * (4 + MOST_CELLS)], question_words, question_count, question_at[MOST_QUESTIONS];
static u32 *blocked, blocked_count; /* states that lack something */
static u32 *tried, tried_count, tried_up_to; /* those that did and may not do so any more */
static u32 answered; /* all questions, when the next call comes */

EXPORT(questions_at) u32 *questions_at(void) { return questions; }

/* Note what lacks. */
static void ask(u32 kind)
{
	int of_part = kind == LACKS_SHARED || kind == LACKS_CLOCK;
	for (u32 i = 0; i < lacks; i++) {
		u32 one = lacking[2 * i], other = lacking[2 * i + 1], j = 0;
		for (; j < question_count; j++) {
			u32 *w = questions + question_at[j];
			if (w[0] == kind && w[2] == other && (of_part || w[1] == one))
				break;
		}
		if (j < question_count || question_count == MOST_QUESTIONS)
			continue;
		u32 *w = questions + question_words, cells = 0;
		w[0] = kind;
		w[1] = one;
		w[2] = other;
		if (of_part) {
			struct part *p = kind == LACKS_CLOCK ? &clock_part : &shared_part;
			for (u32 at = 0; at < MOST_CELLS; at++) {
				w[4 + at] = in_cell(p, chunks_of(p, one), at);
				if (w[4 + at])
					cells = at + 1;
			}
		}
		w[3] = cells;
		question_at[question_count++] = question_words;
		question_words += 4 + cells;
	}
}

static u32 up_to;              /* states below this one have been followed */
static u32 again, again_up_to; /* those that are looked at once more */

/* In the place of executions: the CPUs that went first and alone, if that was a persistent set. */
static void went_first(u32 number, u64 chosen)
{
	copy(state_of(number) + state_words - 2, &chosen, sizeof chosen);
}

/* PersistentSets.holds, of the state that the machine is in: 0 if it does not, -1 if something lacks. */
static int still_holds(u64 chosen)
{
	static struct touch all;
	all.length = 0;
	offers_known = offers_made = 0;
	for (u32 c = 0; c < cpus; c++)
		if (chosen >> c & 1) {
			if (!offered(c))
				return -1;
			join(&all, offers[c].length, offers[c].changed, offers[c].met);
		}
	for (u32 c = 0; c < cpus; c++)
		if (!(chosen >> c & 1) && !(nodes[now[c]].flags & DEAD) && meets(&all, reached[now[c]]))
			return 0;
	return 1;
}

/* Follow a state: DONE, LACKS_MANY (then it is to be tried again), or BROKEN. */
static int learn_from(u32 number)
{
	static u32 found[MOST_OPTIONS];
	u32 narrowed, rule = 0;
	int all = DONE;
	go_to(state_of(number));
	i32 n = followed(found, &narrowed);
	if (n < 0) {
		ask((u32)lacks_what);
		return LACKS_MANY;
	}
	went_first(number, narrowed ? first_chosen : 0);
	for (i32 i = 0; i < n; i++) {
		go_to(state_of(number));
		int code = take_option(found[i], &rule);
		if (code == BROKEN && all_rules_wanted) {
			if (!narrowed)
				continue;
			/* The run ends here, and what was put off is put off for ever. */
			go_to(state_of(number));
			n = options_now(found);
			if (n < 0) {
				ask(LACKS_SHARED);
				return LACKS_MANY;
			}
			narrowed = 0;
			went_first(number, 0);
			i = -1;
			continue;
		}
		if (code == BROKEN)
			return code;
		if (code != DONE) {
			ask((u32)code);
			all = LACKS_MANY;
			continue;
		}
		make_key();
		if (known() == NOTHING)
			went_first(add(), 0);
	}
	if (all == DONE)
		transitions += (u32)n;
	return all;
}

/* The same, of a state that has been followed, if its set is none any more. */
static int learn_again_from(u32 number)
{
	u64 chosen;
	copy(&chosen, state_of(number) + state_words - 2, sizeof chosen);
	if (!chosen)
		return DONE;
	go_to(state_of(number));
	int holds = still_holds(chosen);
	if (holds < 0)
		ask((u32)lacks_what);
	return holds < 0 ? LACKS_MANY : holds ? DONE : learn_from(number);
}

static int learn_states(void)
{
	if (answered) {
		/* What was put aside comes first. */
		u32 *all = tried, room = tried_room;
		tried = blocked;
		tried_room = blocked_room;
		tried_count = blocked_count;
		blocked = all;
		blocked_room = room;
		tried_up_to = blocked_count = question_count = question_words = answered = 0;
	}
	for (u32 budget = LOOK_EVERY; budget; budget--) {
		if (state_count > most_states || no_room())
			return FULL;
		int more = question_count < MOST_QUESTIONS && blocked_count < 2 * question_count + 3, code;
		u32 state;
		if (tried_up_to < tried_count) {
			state = tried[tried_up_to++];
			code = learn_from(state);
		} else if (more && again < again_up_to)
			code = learn_again_from(state = again++);
		else if (more && up_to < state_count)
			code = learn_from(state = up_to++);
		else {
			answered = question_count > 0;
			return answered ? LACKS_MANY : DONE;
		}
		if (code == LACKS_MANY) {
			blocked = grown(blocked, blocked_count, &blocked_room, blocked_count + 1);
			blocked[blocked_count++] = state;
		} else if (code != DONE)
			return code;
	}
	return LOOK;
}

/* From the start. */
EXPORT(begin_learning) void begin_learning(u32 by, u32 all_rules, u32 states)
{
	begin_states(by);
	all_rules_wanted = all_rules;
	most_states = states;
	up_to = again = again_up_to = 0;
	blocked_count = tried_count = tried_up_to = question_count = question_words = answered = 0;
	make_key();
	went_first(add(), 0);
}

/* More is known of what CPUs can reach. */
EXPORT(learn_again) void learn_again(void)
{
	again = 0;
	again_up_to = up_to;
}

/* First learn what is in `in`. Then reports: states, transitions (two words); how many `questions`. */
EXPORT(learn_on) void learn_on(void)
{
	learn(report[0]);
	u32 *more = tell((u32)learn_states());
	more[3] = question_count;
	more[0] = state_count;
	copy(more + 1, &transitions, 8);
}
