/*
 * One share of the states of a search that several processes do together (`sharing_out.py`).
 *
 * Whose a state is, is decided by its hash. States are followed in the order in which they came; what leads to
 * somebody else's goes into that one's box. A state that lacks something is tried again when more is known.
 * Nothing of a state is done before all of it is known, so that nothing is done twice.
 */

#define BY_OPTION 26u /* bits of the number of an option; above them, the share that the way comes from */
#define FULL_BOX (1u << 16) /* words, after which a box is sent */

static u32 share, shares;
static struct box boxes[MOST_SHARES];
#define SENT (1u << 16)
static struct box sent;            /* states that were sent lately, each where its hash says */
static struct box wanted;          /* what lacks: kind, two numbers, cells and what is in them */
static struct table asked_for;     /* the same, each once until more is known: kind and one number, the other */
static struct box waiting;         /* states that lack something */
static struct box after;           /* where what is possible in a state leads */
static u32 up;                     /* states below this one have been followed, but for those */
static u64 ends;                   /* of runs */
static u32 broken_rule, broken_state, broken_option;

/* Afterwards, if CPUs have cycles: who leads to whom, and from where a run ends. */
enum { SEARCHING, LINKING, RETURNING };
static u32 errand;
static struct box leads; /* a state here; the state that leads to it, whose that is, and the next of the same */
static u32 *led_by, *ending_here;
static struct box ending;
static u32 returned;

static void forget_share(void)
{
	for (u32 i = 0; i < MOST_SHARES; i++) {
		boxes[i].room = meanings[i].room = 0;
		for (u32 t = 0; t < 4; t++)
			told[t] = heard[i][t] = (struct box){0};
	}
	wanted.room = waiting.room = sent.room = after.room = leads.room = ending.room = 0;
	asked_for.entries = 0;
}

/* Whose the state that the machine is in is: that goes by what means the same everywhere. */
static u32 owner_now(void)
{
	return (u32)((u64)hash_of(now, cpus) * shares >> 32);
}

/* --- states that come and go ---------------------------------------------------------------------- */

/* The state that the machine is in is one of ours. */
static u32 arrive(u32 parent, u32 by)
{
	make_key();
	u32 number = known();
	if (errand == LINKING) {
		u32 at = leads.count / 3;
		u32 *link = put_in(&leads, 3);
		link[0] = parent;
		link[1] = by >> BY_OPTION;
		link[2] = led_by[number];
		led_by[number] = at;
		return number;
	}
	if (number == NOTHING) {
		number = add();
		u32 *way = state_of(number) + state_words - 2;
		way[0] = parent;
		way[1] = by;
	}
	return number;
}

/* Most states are met several times, often soon: once is enough. */
static int lately_sent(void)
{
	make_key();
	u32 *at = sent.words + (key_hash % SENT) * (cpus + 2);
	if (is_key(at))
		return 1;
	put_now(at);
	return 0;
}

static void goes_to(u32 parent, u32 by)
{
	u32 owner = owner_now();
	if (owner == share) {
		arrive(parent, by);
		return;
	}
	if (errand == SEARCHING && lately_sent())
		return;
	say(owner, 1, shared);
	say(owner, 3, clocks);
	u32 *record = put_in(&boxes[owner], cpus + 4);
	copy(record, now, cpus * 4);
	record[cpus] = shared;
	record[cpus + 1] = clocks;
	record[cpus + 2] = parent;
	record[cpus + 3] = by;
}

static void ask_again(void)
{
	if (!asked_for.entries)
		make(&asked_for, 4096);
	for (u32 i = 0; asked_for.used && i <= asked_for.mask; i++)
		asked_for.entries[i].a = NOTHING;
	asked_for.used = 0;
}

/* A search from the start, by these reductions. */
EXPORT(begin_share) void begin_share(u32 number, u32 of, u32 by)
{
	share = number;
	shares = of;
	begin_states(by);
	for (u32 i = 0; i < MOST_SHARES; i++)
		boxes[i].count = meanings[i].count = 0;
	ask_again();
	sent.count = 0;
	__builtin_memset(put_in(&sent, SENT * (cpus + 2)), 0xff, SENT * (cpus + 2) * 4);
	wanted.count = waiting.count = 0;
	up = 0;
	ends = 0;
	broken_rule = 0;
	errand = SEARCHING;
	if (owner_now() == share)
		arrive(NOTHING, NOTHING);
}

/* An answer may count no more by the time that it comes (DROP). */
EXPORT(learn_words) void learn_words(u32 words)
{
	learn(words);
	ask_again();
}

/* Whether there is memory for so many states more, and for what is to be learnt and said meanwhile. */
EXPORT(fits) u32 fits(u32 states)
{
	u64 slack = 4ull << 20, size = (u64)slot_mask + 1;
	u64 more = slack + ((u64)states / CHUNK + 2) * CHUNK * state_words * 4;
	for (u32 t = 0; t < 4; t++) {
		u32 count = tables[t]->count + MOST_OPTIONS + states, words = count * tables[t]->size;
		more += words > tables[t]->room ? (u64)words * 8 : 0;
		more += count * 2 > tables[t]->mask ? ((u64)tables[t]->mask + 1) * 8 : 0;
		const struct table *edges = t & 2 ? &clock_part.edges : &shared_part.edges;
		more += (edges->used + MOST_OPTIONS) * 2 > edges->mask ? ((u64)edges->mask + 1) * 80 : 0;
	}
	if (errand != SEARCHING)
		more += (u64)leads.room * 8;
	while (((u64)state_count + states) * 2 + 2 > size) {
		size *= 2;
		more += size * 8;
	}
	return at_end + more <= most_bytes && state_count + (u64)states < (u64)MOST_CHUNKS * CHUNK;
}

static void ends_from(u32 number)
{
	if (!ending_here[number]) {
		ending_here[number] = 1;
		*put_in(&ending, 1) = number;
	}
}

/*
 * What another share has put into our box, `words` in `in`: which share, how many words say what numbers mean,
 * these, then states; when returning, those from which a run ends. From nobody: our own states of before.
 */
EXPORT(arrived) void arrived(u32 words)
{
	u32 from = in[0], *p = in + 2 + in[1], *end = in + words;
	hear(from, in + 2, p);
	if (errand == RETURNING) {
		while (p < end)
			ends_from(*p++);
		return;
	}
	for (; p < end; p += cpus + 4) {
		copy(now, p, cpus * 4);
		shared = from == NOTHING ? p[cpus] : meant(from, 1, p[cpus]);
		clocks = from == NOTHING ? p[cpus + 1] : meant(from, 3, p[cpus + 1]);
		arrive(p[cpus + 2], p[cpus + 3]);
	}
}

static void want(int kind)
{
	for (u32 i = 0; i < lacks; i++) {
		u32 a = lacking[2 * i] << 4 | (u32)kind, b = lacking[2 * i + 1];
		if (find(&asked_for, a, b))
			continue;
		put(&asked_for, a, b, 0, 0, 0);
		struct part *p = kind == LACKS_SHARED || (kind == LACKS_VERDICT && b == OF_SHARED) ? &shared_part
			: kind == LACKS_CLOCK || (kind == LACKS_VERDICT && b == OF_CLOCKS) ? &clock_part : 0;
		u32 n = p ? MOST_CELLS : 0;
		const u32 *chunks = p ? chunks_of(p, lacking[2 * i]) : 0;
		while (n && !in_cell(p, chunks, n - 1))
			n--;
		u32 *one = put_in(&wanted, 4 + n);
		one[0] = (u32)kind;
		one[1] = p ? 0 : lacking[2 * i];
		one[2] = b;
		one[3] = n;
		while (n--)
			one[4 + n] = in_cell(p, chunks, n);
	}
}

#define WAITS (-1)

static int breaks(u32 state, u32 option, u32 rule)
{
	broken_rule = rule;
	broken_state = state;
	broken_option = option;
	return BROKEN;
}

/* Follow a state: DONE, BROKEN, or WAITS if something lacks; then nothing has happened. */
static int follow_up(u32 number)
{
	static u32 found[MOST_OPTIONS];
	u32 narrowed, rule = 0;
	go_to(state_of(number));
	i32 n = followed(found, &narrowed);
	if (n < 0) {
		want(lacks_what);
		return WAITS;
	}
	if (!n) {
		if (verdict_now(&rule) == LACKS_VERDICT) {
			want(LACKS_VERDICT);
			return WAITS;
		}
		if (errand == LINKING)
			ends_from(number);
		else
			ends++;
		return rule ? breaks(number, NOTHING, rule) : DONE;
	}
	for (;;) {
		u32 lacked = 0, around = 0;
		after.count = 0;
		for (i32 i = 0; i < n; i++) {
			u32 c = options[found[i]].cpu;
			go_to(state_of(number));
			int code = take_option(found[i], &rule);
			if (code == BROKEN)
				return breaks(number, found[i], rule);
			if (code != DONE) {
				want(code);
				lacked = 1;
				continue;
			}
			u32 cycle = nodes[now[c]].flags >> CYCLE_AT;
			around |= cycle && cycle == nodes[state_of(number)[c]].flags >> CYCLE_AT;
			u32 *record = put_in(&after, cpus + 2);
			copy(record, now, cpus * 4);
			record[cpus] = shared;
			record[cpus + 1] = clocks;
		}
		if (lacked)
			return WAITS;
		if (!narrowed || !around)
			break;
		/* A CPU may come back to where it is: what was put off would be put off for ever. */
		narrowed = 0;
		go_to(state_of(number));
		n = options_now(found);
		if (n < 0) {
			want(LACKS_SHARED);
			return WAITS;
		}
	}
	for (i32 i = 0; i < n; i++) {
		u32 *record = after.words + (u32)i * (cpus + 2);
		copy(now, record, cpus * 4);
		shared = record[cpus];
		clocks = record[cpus + 1];
		goes_to(number, share << BY_OPTION | found[i]);
	}
	if (errand == SEARCHING)
		transitions += (u32)n;
	return DONE;
}

/* Those that were waiting, once each. */
static int try_again(void)
{
	u32 kept = 0, i = 0, count = waiting.count;
	int code = DONE;
	while (i < count && code == DONE) {
		if (!fits(MOST_OPTIONS)) {
			code = FULL;
			break;
		}
		u32 number = waiting.words[i++];
		code = follow_up(number);
		if (code == WAITS) {
			waiting.words[kept++] = number;
			code = DONE;
		}
	}
	while (i < count)
		waiting.words[kept++] = waiting.words[i++];
	waiting.count = kept;
	return code;
}

static int a_box_is_full(void)
{
	for (u32 i = 0; i < shares; i++)
		if (boxes[i].count > FULL_BOX)
			return 1;
	return wanted.count > FULL_BOX;
}

static int follow_all(u32 budget)
{
	while (up < state_count) {
		if (!budget-- || a_box_is_full())
			return LOOK;
		if (!fits(MOST_OPTIONS))
			return FULL;
		int code = follow_up(up);
		if (code == WAITS)
			*put_in(&waiting, 1) = up;
		else if (code != DONE)
			return code;
		up++;
	}
	return DONE;
}

static int return_all(u32 budget)
{
	while (returned < ending.count) {
		if (!budget-- || a_box_is_full())
			return LOOK;
		for (u32 at = led_by[ending.words[returned++]]; at != NOTHING; at = leads.words[3 * at + 2]) {
			u32 *link = leads.words + 3 * at;
			if (link[1] == share)
				ends_from(link[0]);
			else
				*put_in(&boxes[link[1]], 1) = link[0];
		}
	}
	return DONE;
}

/*
 * Go on for so many states, those that were waiting first if more is known. Reports what ended it, states,
 * transitions (two words), ends (two), how many are still to be followed, how many wait, words of `wanted`, a
 * broken rule, its state and option, from how many states a run ends, bytes taken, and for each share the words of meanings and in its box.
 */
EXPORT(share_on) u32 *share_on(u32 budget, u32 again)
{
	int code = again ? try_again() : DONE;
	if (code == DONE)
		code = errand == RETURNING ? return_all(budget) : follow_all(budget);
	u32 *p = report;
	*p++ = (u32)code;
	*p++ = state_count;
	copy(p, &transitions, 8);
	copy(p + 2, &ends, 8);
	p += 4;
	*p++ = errand == RETURNING ? ending.count - returned : state_count - up;
	*p++ = waiting.count;
	*p++ = wanted.count;
	*p++ = broken_rule;
	*p++ = broken_state;
	*p++ = broken_option;
	*p++ = ending.count;
	*p++ = at_end;
	for (u32 i = 0; i < shares; i++) {
		*p++ = meanings[i].count;
		*p++ = boxes[i].count;
	}
	return report;
}

/* The words in a box, which is empty then: what numbers mean to somebody, what goes there, what is wanted. */
EXPORT(emptied) u32 *emptied(u32 number)
{
	struct box *box = number >= 2 * shares ? &wanted : number & 1 ? &boxes[number / 2] : &meanings[number / 2];
	box->count = 0;
	return box->words;
}

/* The search is over: now find out who leads to whom (0), then from where a run ends (1). */
EXPORT(look_back) u32 look_back(u32 returning)
{
	if (returning) {
		errand = RETURNING;
		returned = 0;
		return 1;
	}
	if (at_end + (u64)state_count * 8 > most_bytes)
		return 0;
	errand = LINKING;
	led_by = (u32 *)take(state_count * 4);
	ending_here = (u32 *)take(state_count * 4);
	for (u32 i = 0; i < state_count; i++) {
		led_by[i] = NOTHING;
		ending_here[i] = 0;
	}
	leads.count = ending.count = 0;
	up = 0;
	return 1;
}

/* The first state from which no run ends. */
EXPORT(first_endless) u32 first_endless(void)
{
	u32 i = 0;
	while (i < state_count && ending_here[i])
		i++;
	return i;
}

/* --- to be kept, and gone on with ----------------------------------------------------------------- */

EXPORT(state_at) u32 *state_at(u32 number) { return state_of(number); }
/* Words of a table, and as many in `in` that it had, in their order. */
EXPORT(table_size) u32 table_size(u32 t) { return tables[t]->count * tables[t]->size; }
EXPORT(table_at) u32 *table_at(u32 t) { return tables[t]->all; }

EXPORT(table_back) void table_back(u32 t, u32 words)
{
	for (u32 i = 0; i < words; i += tables[t]->size)
		kept(tables[t], in + i);
}

EXPORT(waiting_at) u32 *waiting_at(void) { return waiting.words; }

/* All states have arrived again: `words` of those that wait are in `in`, from `next` on they are to be followed. */
EXPORT(go_on_from) void go_on_from(u32 words, u32 next, double taken, double ended)
{
	waiting.count = 0;
	copy(put_in(&waiting, words), in, words * 4);
	up = next;
	transitions = (u64)taken;
	ends = (u64)ended;
}
