/*
 * Every interleaving, each state once: the search of `exhaustive.py`, state for state.
 *
 * A state is the numbers of its nodes, compared in full. Executions are counted in doubles, as there, in the
 * same order.
 */

/* --- states ------------------------------------------------------------------------------------- */

#define CHUNK 4096u /* states */
#define MOST_CHUNKS (1u << 16)

static u32 *chunks[MOST_CHUNKS];
static u64 *slots; /* hash table: 0 free, else the hash (upper half), and the number of a state and one */
static u32 slot_mask, state_count, state_words, chunks_made;

static u32 *state_of(u32 number)
{
	return chunks[number / CHUNK] + (number % CHUNK) * state_words;
}

/* Behind the nodes, what is shared and the clocks: executions from here to the end, ON_PATH while unknown. */
#define ON_PATH -1.0

static double executions_of(u32 number)
{
	double value;
	copy(&value, state_of(number) + state_words - 2, sizeof value);
	return value;
}

static void executed(u32 number, double value)
{
	copy(state_of(number) + state_words - 2, &value, sizeof value);
}

/* What the state that the machine is in is known by: nodes, what is shared and the clocks; and its hash. */
static u32 state_key[MOST_CPUS + 2], key_hash, by_swaps;

static void make_key(void)
{
	for (u32 c = 0; c < cpus; c++)
		state_key[c] = now[c];
	state_key[cpus] = shared;
	state_key[cpus + 1] = clocks;
	if (by_swaps)
		least(state_key);
	u64 h = (u64)state_key[cpus] << 32 | state_key[cpus + 1];
	h *= 0x9e3779b97f4a7c15ull;
	for (u32 c = 0; c < cpus; c++) {
		h ^= state_key[c];
		h = (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9ull;
	}
	key_hash = (u32)(h ^ (h >> 32));
}

static int is_key(const u32 *s)
{
	for (u32 i = 0; i < cpus + 2; i++)
		if (s[i] != state_key[i])
			return 0;
	return 1;
}

static void put_now(u32 *s)
{
	for (u32 c = 0; c < cpus; c++)
		s[c] = now[c];
	s[cpus] = shared;
	s[cpus + 1] = clocks;
}

static void go_to(const u32 *s)
{
	for (u32 c = 0; c < cpus; c++)
		now[c] = s[c];
	shared = s[cpus];
	clocks = s[cpus + 1];
}

/* The number of the state of this key, NOTHING if it has not been met. */
static u32 known(void)
{
	for (u32 i = key_hash & slot_mask; slots[i]; i = (i + 1) & slot_mask)
		if ((u32)(slots[i] >> 32) == key_hash && is_key(state_of((u32)slots[i] - 1)))
			return (u32)slots[i] - 1;
	return NOTHING;
}

static void put_slot(u32 h, u32 number)
{
	u32 i = h & slot_mask;
	while (slots[i])
		i = (i + 1) & slot_mask;
	slots[i] = (u64)h << 32 | (number + 1);
}

/* Another state, of this key. */
static u32 add(void)
{
	if (state_count * 2 > slot_mask) {
		u64 *old = slots;
		u32 size = (slot_mask + 1) * 2;
		slots = (u64 *)take(size * 8);
		__builtin_memset(slots, 0, (__SIZE_TYPE__)size * 8);
		slot_mask = size - 1;
		for (u32 i = 0; i < size / 2; i++)
			if (old[i])
				put_slot((u32)(old[i] >> 32), (u32)old[i] - 1);
	}
	if (state_count == chunks_made * CHUNK)
		chunks[chunks_made++] = (u32 *)take(CHUNK * state_words * 4);
	u32 number = state_count++, *s = state_of(number);
	for (u32 i = 0; i < cpus + 2; i++)
		s[i] = state_key[i];
	executed(number, ON_PATH);
	put_slot(key_hash, number);
	return number;
}

/* --- the way from the start to where the search is ----------------------------------------------- */

struct level {
	u32 state, first, count, at; /* its options are `first` and on of `ways` */
	u32 narrowed, following;     /* following: a list of states that lead on, as far as none is known to end */
	double executions;
};

static struct level *levels;
static u32 level_count, level_room;
static u32 *level_states, level_states_room; /* each as it was met, which its key need not be */
static u32 *ways, way_count, way_room;

struct link {
	u32 state, next;
};
static struct link *links;
static u32 link_count, link_room, link_free;

/* States with no executions when they were left: state, its following, length of the way there, the way. */
static u32 *open, open_count, open_room;

static u64 most_states, most_bytes = 3900ull << 20;
static u64 transitions, ways_ended;
enum { BY_AMPLE = 1, BY_PERSISTENT = 2, BY_SYMMETRY = 4 };
static u32 reductions, all_rules_wanted, violated;
static u64 rules;
enum { BEGINNING, ENTERING, STEPPING, ARRIVED, WIDENING, OVER };
#define LOOK_EVERY 65536u
static u32 phase;

static void follow(struct level *level, u32 state)
{
	u32 at = link_free;
	if (at)
		link_free = links[at].next;
	else {
		if (link_count == link_room) {
			struct link *old = links;
			links = (struct link *)take((link_room + 512) * 2 * (u32)sizeof(struct link));
			copy(links, old, link_count * (u32)sizeof(struct link));
			link_room = (link_room + 512) * 2;
		}
		if (!link_count)
			link_count = 1; /* 0 ends a list */
		at = link_count++;
	}
	links[at] = (struct link){state, level->following};
	level->following = at;
}

/* Memory is 4 GiB at most, some of which is kept for what is still to be learnt. */
EXPORT(limit_memory) void limit_memory(u32 mib)
{
	most_bytes = (u64)mib << 20;
}

/* Whether another state and its slot might take more than there is. */
static int no_room(void)
{
	u64 more = CHUNK * state_words * 4;
	if (state_count * 2 + 2 > slot_mask)
		more += ((u64)slot_mask + 1) * 16;
	return at_end + more > most_bytes;
}

static u32 blocked_room, tried_room; /* learning.c */

static void forget_states(void)
{
	blocked_room = tried_room = 0;
	chunks_made = 0;
	slots = 0;
	slot_mask = 0;
	level_room = level_states_room = way_room = open_room = link_room = 0;
}

/* No states, at the start. What an earlier search has taken of memory is used again. */
static void begin_states(u32 by)
{
	reductions = by;
	by_swaps = by & BY_SYMMETRY && swap_count;
	state_count = 0;
	state_words = cpus + 4 + (cpus & 1);
	if (!slots) {
		slot_mask = 4095;
		slots = (u64 *)take((slot_mask + 1) * 8);
	}
	__builtin_memset(slots, 0, ((__SIZE_TYPE__)slot_mask + 1) * 8);
	transitions = ways_ended = 0;
	reset();
}

/* A search from the start. */
EXPORT(begin_exhaustive) void begin_exhaustive(u32 by, u32 all_rules, u32 states)
{
	begin_states(by);
	all_rules_wanted = all_rules;
	most_states = states;
	level_count = way_count = open_count = 0;
	link_count = link_free = 0;
	violated = 0;
	rules = 0;
	length = 0;
	phase = BEGINNING;
}

/* --- what may go first -------------------------------------------------------------------------- */

static int lacks_what;

/* What is touched: a length, and that many words of what is changed and of what is met. */
struct touch {
	u32 length, changed[MOST_MASK], met[MOST_MASK];
};

static void join(struct touch *t, u32 length, const u32 *changed, const u32 *met)
{
	for (u32 i = t->length; i < length; i++)
		t->changed[i] = t->met[i] = 0;
	if (t->length < length)
		t->length = length;
	for (u32 i = 0; i < length; i++) {
		t->changed[i] |= changed[i];
		t->met[i] |= met[i];
	}
}

static void join_mask(struct touch *t, u32 mask)
{
	const u32 *m = masks + mask_at[mask];
	join(t, m[0], m + 1, m + 1 + m[0]);
}

static int meets(const struct touch *t, u32 mask)
{
	const u32 *m = masks + mask_at[mask], *closed = masks + mask_at[closed_mask];
	u32 n = m[0] < t->length ? m[0] : t->length;
	for (u32 i = 0; i < n; i++) {
		u32 both = (t->changed[i] & m[1 + m[0] + i]) | (m[1 + i] & t->met[i]);
		if (i < closed[0])
			both &= ~closed[1 + i];
		if (both)
			return 1;
	}
	return 0;
}

/* What each CPU offers in the state that the machine is in, as far as that has been asked for. */
static struct touch offers[MOST_CPUS];
static u32 offer_first[MOST_CPUS], offer_count[MOST_CPUS], offer_ways[MOST_OPTIONS], offers_made;
static u64 offers_known;

/*
 * PersistentSets._offered: options of one CPU that are possible now, and what they and all that the CPU's state
 * offers touch. 0 if something lacks.
 */
static int offered(u32 c)
{
	struct node *node = &nodes[now[c]];
	struct touch *t = &offers[c];
	u32 from = offers_made;
	lacks = 0;
	u32 n = options_of(c, offer_ways, from);
	if (lacks) {
		lacks_what = LACKS_SHARED;
		return 0;
	}
	t->length = 0;
	for (u32 o = node->first; o < node->first + node->count; o++)
		if (asked_masks[o] != NOTHING)
			join_mask(t, asked_masks[o]);
	for (u32 i = from; i < n; i++) {
		struct option *option = &options[offer_ways[i]];
		u32 answer = OWN_ANSWER;
		if (option->action != NOTHING)
			answer = edge_of(&shared_part, shared, option->action)->x;
		struct entry *done = find(&touched, offer_ways[i], answer);
		if (!done) {
			lacks_what = lack(LACKS_TOUCHED, offer_ways[i], answer);
			return 0;
		}
		join_mask(t, done->x);
	}
	offer_first[c] = from;
	offer_count[c] = n - from;
	offers_made = n;
	offers_known |= 1ull << c;
	return 1;
}

/*
 * PersistentSets._closed: their options into `found`, and who they are; 0 if that would be everybody, -1 if
 * something lacks.
 */
static i32 closed_set(u32 cpu, u32 *found, u64 *who)
{
	static struct touch all;
	u64 everybody = cpus == 64 ? ~0ull : (1ull << cpus) - 1, chosen = 1ull << cpu, ahead = chosen;
	u32 n = 0;
	all.length = 0;
	while (ahead) {
		u32 c = 63 - (u32)__builtin_clzll(ahead);
		ahead &= ~(1ull << c);
		if (!(offers_known >> c & 1) && !offered(c))
			return -1;
		copy(found + n, offer_ways + offer_first[c], offer_count[c] * 4);
		n += offer_count[c];
		join(&all, offers[c].length, offers[c].changed, offers[c].met);
		for (u32 other = 0; other < cpus; other++) {
			if (chosen >> other & 1 || nodes[now[other]].flags & DEAD)
				continue;
			if (meets(&all, reached[now[other]])) {
				chosen |= 1ull << other;
				ahead |= 1ull << other;
				if (chosen == everybody)
					return 0;
			}
		}
	}
	*who = chosen;
	return (i32)n;
}

static u64 first_chosen; /* the CPUs of the set that `followed` has found last, 0 if it was none */

/* PersistentSets.first: how many options may go first and alone, 0 for none, -1 if something lacks. */
static i32 persistent(u32 *found)
{
	static u32 others[MOST_OPTIONS];
	i32 best = 0;
	offers_known = offers_made = 0;
	for (u32 c = 0; c < cpus; c++) {
		if (!nodes[now[c]].count)
			continue;
		u64 who;
		i32 n = closed_set(c, others, &who);
		if (n < 0)
			return -1;
		if (n && (!best || n < best)) {
			best = n;
			first_chosen = who;
			copy(found, others, (u32)n * 4);
			if (n == 1)
				break;
		}
	}
	return best;
}

/* --- the search --------------------------------------------------------------------------------- */

/* Note a broken rule; whether to stop. The last option taken is the one before `at`. */
static int judge(u32 rule)
{
	if (!rule)
		return 0;
	rules |= 1ull << (rule - 1);
	if (!violated) {
		violated = rule;
		length = 0;
		for (u32 i = 0; i < level_count; i++)
			note(ways[levels[i].first + levels[i].at - 1]);
	}
	return !all_rules_wanted;
}

/* What is followed in the state that the machine is in: how many, -1 if something lacks (`lacks_what`). */
static i32 followed(u32 *found, u32 *narrowed)
{
	*narrowed = 1;
	first_chosen = 0;
	if (reductions & BY_AMPLE)
		for (u32 c = 0; c < cpus; c++)
			if (nodes[now[c]].ample != NOTHING) {
				found[0] = nodes[now[c]].ample;
				return 1;
			}
	if (reductions & BY_PERSISTENT) {
		i32 n = persistent(found);
		if (n)
			return n;
	}
	*narrowed = 0;
	lacks_what = LACKS_SHARED;
	return options_now(found);
}

/* Into the state that the machine is in, a new one: DONE, BROKEN to stop, or what lacks. */
static int enter(void)
{
	static u32 found[MOST_OPTIONS];
	u32 narrowed;
	i32 n = followed(found, &narrowed);
	if (n < 0)
		return lacks_what;
	if (!n) {
		u32 rule = 0;
		int verdict = verdict_now(&rule);
		if (verdict == LACKS_VERDICT)
			return verdict;
		executed(add(), 1.0);
		ways_ended++;
		return judge(rule) ? BROKEN : DONE;
	}
	if (level_count == level_room) {
		struct level *old = levels;
		levels = (struct level *)take((level_room + 512) * 2 * (u32)sizeof(struct level));
		copy(levels, old, level_count * (u32)sizeof(struct level));
		level_room = (level_room + 512) * 2;
	}
	ways = grown(ways, way_count, &way_room, way_count + (u32)n + MOST_OPTIONS);
	copy(ways + way_count, found, (u32)n * 4);
	u32 words = cpus + 2;
	level_states = grown(level_states, level_count * words, &level_states_room, (level_count + 1) * words);
	put_now(level_states + level_count * words);
	levels[level_count++] = (struct level){add(), way_count, (u32)n, 0, narrowed, 0, 0.0};
	way_count += (u32)n;
	return DONE;
}

static void go_to_level(const struct level *level)
{
	go_to(level_states + (u32)(level - levels) * (cpus + 2));
}

/* All options of the top level, those taken first: 0 if edges lack. The machine is in its state. */
static int widen(struct level *level)
{
	static u32 found[MOST_OPTIONS];
	if (!level->narrowed)
		return 1;
	go_to_level(level);
	i32 n = options_now(found);
	if (n < 0)
		return 0;
	level->narrowed = 0;
	u32 taken = level->at;
	level->count = taken;
	for (i32 i = 0; i < n; i++) {
		u32 known = 0;
		for (u32 j = 0; j < taken; j++)
			known |= ways[level->first + j] == found[i];
		if (!known)
			ways[level->first + level->count++] = found[i];
	}
	way_count = level->first + level->count;
	ways = grown(ways, way_count, &way_room, way_count + MOST_OPTIONS);
	return 1;
}

static void left_open(struct level *level)
{
	u32 count = 0;
	for (u32 at = level->following; at; at = links[at].next)
		count++;
	u32 words = 3 + count + level_count;
	open = grown(open, open_count, &open_room, open_count + words);
	u32 *p = open + open_count;
	*p++ = level->state;
	*p++ = count;
	/* Last first: `exhaustive.py` keeps the order, but asks only whether any of them ends. */
	for (u32 at = level->following; at; at = links[at].next)
		*p++ = links[at].state;
	*p++ = level_count;
	for (u32 i = 0; i < level_count; i++)
		*p++ = ways[levels[i].first + levels[i].at - 1];
	open_count += words;
}

static void leave(void)
{
	struct level *level = &levels[--level_count];
	way_count = level->first;
	executed(level->state, level->executions);
	if (level->executions == 0.0)
		left_open(level);
	while (level->following) {
		u32 at = level->following;
		level->following = links[at].next;
		links[at].next = link_free;
		link_free = at;
	}
	if (level_count)
		levels[level_count - 1].executions += level->executions;
}

static u32 pending_rule, pending_first;

/* On to the end, a broken rule, or what lacks. */
static int exhaust(void)
{
	for (;;) {
		struct level *level = level_count ? &levels[level_count - 1] : 0;
		int code;
		switch (phase) {
		case BEGINNING:
			make_key();
			/* fall through */
		case ENTERING: {
			u32 parent = level_count;
			code = enter();
			if (code != DONE && code != BROKEN)
				return code;
			u32 beginning = phase == BEGINNING, entered = state_count - 1;
			phase = code == BROKEN ? OVER : STEPPING;
			if (code == BROKEN)
				return BROKEN;
			if (beginning)
				break;
			level = &levels[parent - 1];
			if (pending_first)
				follow(level, entered);
			if (level_count == parent) /* the end of a run */
				level->executions += 1;
			break;
		}
		case STEPPING:
			if (!level)
				return DONE;
			if (level->at == level->count) {
				leave();
				break;
			}
			go_to_level(level);
			code = take_option(ways[level->first + level->at], &pending_rule);
			if (code != DONE && code != BROKEN)
				return code;
			level->at++;
			transitions++;
			phase = ARRIVED;
			if (state_count > most_states || no_room()) {
				phase = OVER;
				return FULL;
			}
			if (transitions % LOOK_EVERY == 0)
				return LOOK;
			break;
		case ARRIVED: {
			if (pending_rule) {
				ways_ended++;
				level->executions += 1;
				if (judge(pending_rule)) {
					phase = OVER;
					return BROKEN;
				}
				phase = WIDENING;
				break;
			}
			pending_first = level->executions == 0.0;
			make_key();
			u32 met = known();
			if (met == NOTHING) {
				phase = ENTERING;
				break;
			}
			if (pending_first)
				follow(level, met);
			ways_ended++;
			double executions = executions_of(met);
			if (executions == ON_PATH) {
				phase = WIDENING;
				break;
			}
			level->executions += executions;
			phase = STEPPING;
			break;
		}
		case WIDENING:
			if (!widen(level))
				return LACKS_SHARED;
			phase = STEPPING;
			break;
		default:
			return DONE;
		}
	}
}

/*
 * First learn what is in `in`. Then reports: states, transitions and ways that ended (two words each), the
 * rules that broke (two), the first of them, executions from the start (a double), the length of the way to
 * the first violation, words of `open`.
 */
EXPORT(exhaust_on) void exhaust_on(void)
{
	learn(report[0]);
	u32 *more = tell((u32)exhaust());
	double total = state_count ? executions_of(0) : 0.0;
	more[0] = state_count;
	copy(more + 1, &transitions, 8);
	copy(more + 3, &ways_ended, 8);
	copy(more + 5, &rules, 8);
	more[7] = violated;
	copy(more + 8, &total, 8);
	more[10] = length;
	more[11] = open_count;
}

EXPORT(open_at) u32 *open_at(void) { return open; }
