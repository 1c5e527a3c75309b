/*
 * What CPUs can reach, found out before anything is proved, as `learning.py` does it but in the order in which
 * states are met: when more is known, only those states are followed anew whose set is none any more.
 */

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

/* Follow a state: DONE, what lacks (then it is to be tried again), or BROKEN. */
static int learn_from(u32 number)
{
	static u32 found[MOST_OPTIONS];
	u32 narrowed, rule = 0;
	go_to(state_of(number));
	i32 n = followed(found, &narrowed);
	if (n < 0)
		return lacks_what;
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
			if (n < 0)
				return LACKS_SHARED;
			narrowed = 0;
			went_first(number, 0);
			i = -1;
			continue;
		}
		if (code != DONE)
			return code;
		make_key();
		if (known() == NOTHING)
			went_first(add(), 0);
	}
	transitions += (u32)n;
	return DONE;
}

static int learn_states(void)
{
	for (u32 budget = LOOK_EVERY; budget; budget--) {
		if (state_count > most_states || no_room())
			return FULL;
		int code = DONE;
		if (again < again_up_to) {
			u64 chosen;
			copy(&chosen, state_of(again) + state_words - 2, sizeof chosen);
			if (chosen) {
				go_to(state_of(again));
				int holds = still_holds(chosen);
				code = holds < 0 ? lacks_what : holds ? DONE : learn_from(again);
			}
			again += code == DONE;
		} else if (up_to < state_count) {
			code = learn_from(up_to);
			up_to += code == DONE;
		} else
			return DONE;
		if (code != DONE)
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
	make_key();
	went_first(add(), 0);
}

/* More is known of what CPUs can reach. */
EXPORT(learn_again) void learn_again(void)
{
	again = 0;
	again_up_to = up_to;
}

/* First learn what is in `in`. Then reports: states, transitions (two words). */
EXPORT(learn_on) void learn_on(void)
{
	learn(report[0]);
	u32 *more = tell((u32)learn_states());
	more[0] = state_count;
	copy(more + 1, &transitions, 8);
}
