/*
 * The product of the learnt graphs, as integers: what `learned.py` keeps in dictionaries.
 *
 * Everything that a search looks up is here; whatever is not is learnt by Python, which adds it.
 */

/* --- the graph ---------------------------------------------------------------------------------- */

struct node {
	u32 first, count; /* its options */
	u32 flags;
	u32 ample; /* the option that may be taken before everything else, NOTHING if there is none */
};

#define DEAD 1u
#define IDLE 2u
#define CYCLE_AT 2u /* flags above: number of the cycles of its CPU's graph that it is on, 0 for none */

struct option {
	u32 action; /* NOTHING: the CPU's own business */
	u32 cpu, agent, walks;
	u32 cached;   /* of a walk: the answer that the walker has already, NOTHING if none */
	u32 to, event, broken; /* of its own business: where it leads and what rule breaks; NOTHING until learnt */
};

#define FALSY 1u /* lowest bit of the number of an answer */

static struct node *nodes;
static struct option *options;
static u32 node_count, node_room, option_count, option_room;
static struct table successors;   /* (option, answer) -> node, event, rule */
static struct table verdicts;     /* (number, of what) -> rule */

static u32 *in; /* what Python hands over */
static u32 in_room;

/* What the machine is in. */
static u32 cpus;
static u32 now[MOST_CPUS], shared, clocks;
static u32 first_nodes[MOST_CPUS], first_shared, first_clocks;

/* What a search lacks: kind in the code that it returns, pairs here. */
static u32 lacking[2 * MOST_OPTIONS];
static u32 lacks;

enum { OF_SHARED, OF_CLOCKS, OF_DEADLOCK };
enum {
	DONE, LACKS_SHARED, LACKS_OWN, LACKS_ANSWERED, LACKS_CLOCK, LACKS_VERDICT, LACKS_TOUCHED,
	BROKEN, LOOK, FULL, LACKS_MANY
};

/*
 * What transitions touch, as `dependence.py` has it: a length, and that many words of what is changed and of
 * what is met. Bits of keys that do not count yet are in the first half of `closed_mask`.
 */
#define MOST_MASK 2048u /* words */
static u32 *masks, mask_words, mask_room;
static u32 *mask_at, masks_made, mask_at_room;
static u32 closed_mask;
static struct table touched;   /* (option, answer) -> mask */
#define ASKED 0xfffffffeu      /* in the place of an answer: what decides whether it is possible */
#define OWN_ANSWER 0xfffffffdu /* where nothing is asked */
static u32 *asked_masks, asked_room; /* of each option: mask of what decides whether it is possible, NOTHING for none */
static u32 *reached, reached_room; /* of each node: mask of all that its CPU may still touch */

static u32 *path, length, path_room; /* options that have been taken */

EXPORT(path_at) u32 *path_at(void) { return path; }

static void note(u32 option)
{
	path = grown(path, length, &path_room, length + 1);
	path[length++] = option;
}

static void forget_runs(void);
static void forget_states(void);
static void forget_share(void);
static void forget_swaps(void);

EXPORT(forget) void forget(u32 count)
{
	forget_runs();
	forget_states();
	forget_share();
	forget_swaps();
	path_room = 0;
	at_end = ((u32)&__heap_base + 15u) & ~15u;
	node_count = option_count = 0;
	node_room = 1024;
	option_room = 4096;
	nodes = (struct node *)take(node_room * (u32)sizeof(struct node));
	options = (struct option *)take(option_room * (u32)sizeof(struct option));
	make_part(&shared_part);
	make_part(&clock_part);
	make(&successors, 4096);
	make(&verdicts, 1024);
	make(&touched, 1024);
	mask_words = mask_room = masks_made = mask_at_room = reached_room = asked_room = 0;
	in = 0;
	in_room = 0;
	cpus = count;
}

EXPORT(room) u32 *room(u32 words)
{
	if (words > in_room) {
		in_room = words < 16384 ? 16384 : words * 2;
		in = (u32 *)take(in_room * 4);
	}
	return in;
}

enum {
	NODE, SHARED, OWN, ANSWERED, CLOCK, VERDICT, MASK, TOUCHED, REACHED, CLOSED, CYCLE, PATH, DROP, VERDICT_OF,
	SWAPS, IMAGE, RANK, CELL_IMAGE, VALUE_IMAGE
};

static u32 *add_node(u32 *p)
{
	if (node_count == node_room) {
		struct node *old = nodes;
		nodes = (struct node *)take(node_room * 2 * (u32)sizeof(struct node));
		copy(nodes, old, node_room * (u32)sizeof(struct node));
		node_room *= 2;
	}
	u32 cpu = p[0], flags = p[1], first = p[2], many = p[3];
	p += 4;
	if (first != NOTHING)
		first += option_count;
	nodes[node_count++] = (struct node){option_count, many, flags, first};
	asked_masks = grown(asked_masks, option_count, &asked_room, option_count + many);
	for (u32 i = 0; i < many; i++)
		asked_masks[option_count + i] = NOTHING;
	while (many--) {
		if (option_count == option_room) {
			struct option *old = options;
			options = (struct option *)take(option_room * 2 * (u32)sizeof(struct option));
			copy(options, old, option_room * (u32)sizeof(struct option));
			option_room *= 2;
		}
		options[option_count++] =
			(struct option){p[0], cpu, p[1], p[2], p[3], NOTHING, NOTHING, 0};
		p += 4;
	}
	return p;
}

/*
 * What Python has learnt, `words` of it in `in`. NODE: CPU, flags, the ample option, number of options, of each action, agent,
 * walks, cached. SHARED: shared, action, answer, next, broken. OWN: option, node, event, broken. ANSWERED:
 * option, answer, node, event, broken. CLOCK: clock, event, next, broken. VERDICT: number, of what, broken.
 * MASK, the next one: length, what is changed, what is met. TOUCHED: option, answer, mask. REACHED: node, mask.
 * CLOSED: mask. CYCLE: node, number of its cycles. PATH: which part (0: what is shared), then as `add_path` has
 * it. DROP: which part, action. VERDICT_OF: which part, number of cells, what is in them, broken. The others:
 * orbits.c.
 */
static void learn(u32 words)
{
	for (u32 *p = in, *end = in + words; p < end;) {
		switch (*p++) {
		case NODE:
			p = add_node(p);
			break;
		case SHARED:
			put(&shared_part.edges, p[0], p[1], p[2], p[3], p[4]);
			p += 5;
			break;
		case OWN: {
			struct option *o = &options[p[0]];
			o->to = p[1];
			o->event = p[2];
			o->broken = p[3];
			p += 4;
			break;
		}
		case ANSWERED:
			put(&successors, p[0], p[1], p[2], p[3], p[4]);
			p += 5;
			break;
		case CLOCK:
			put(&clock_part.edges, p[0], p[1], 0, p[2], p[3]);
			p += 4;
			break;
		case VERDICT:
			put(&verdicts, p[0], p[1], p[2], 0, 0);
			p += 3;
			break;
		case MASK: {
			u32 size = 1 + 2 * *p;
			masks = grown(masks, mask_words, &mask_room, mask_words + size);
			mask_at = grown(mask_at, masks_made, &mask_at_room, masks_made + 1);
			copy(masks + mask_words, p, size * 4);
			mask_at[masks_made++] = mask_words;
			mask_words += size;
			p += size;
			break;
		}
		case TOUCHED:
			if (p[1] == ASKED)
				asked_masks[p[0]] = p[2];
			else
				put(&touched, p[0], p[1], p[2], 0, 0);
			p += 3;
			break;
		case REACHED:
			reached = grown(reached, reached_room, &reached_room, p[0] + 1);
			reached[p[0]] = p[1];
			p += 2;
			break;
		case CLOSED:
			closed_mask = *p++;
			break;
		case CYCLE:
			nodes[p[0]].flags = (nodes[p[0]].flags & (DEAD | IDLE)) | p[1] << CYCLE_AT;
			p += 2;
			break;
		case PATH:
			p = add_path(p[0] ? &clock_part : &shared_part, p + 1);
			break;
		case DROP:
			/* Its edges stay: they are what happened. */
			put(p[0] ? &clock_part.roots : &shared_part.roots, p[1], 0, DROPPED, 0, 0);
			p += 2;
			break;
		case VERDICT_OF: {
			u32 state = state_of_cells(p[0] ? &clock_part : &shared_part, p + 2, p[1]);
			put(&verdicts, state, p[0] ? OF_CLOCKS : OF_SHARED, p[2 + p[1]], 0, 0);
			p += 3 + p[1];
			break;
		}
		case SWAPS:
			p = learn_swaps(p);
			break;
		case IMAGE:
			learn_image(p[0], p[1], p[2]);
			p += 3;
			break;
		case RANK:
			ranks = grown(ranks, ranks_room, &ranks_room, p[0] + 1);
			ranks[p[0]] = p[1];
			p += 2;
			break;
		case CELL_IMAGE:
			cell_images[p[0]][p[1]][p[2]] = p[3];
			p += 4;
			break;
		case VALUE_IMAGE:
			put(&value_images, value_at(p[0], p[1], p[2]), p[3], p[4], 0, 0);
			p += 5;
			break;
		default:
			__builtin_trap();
		}
	}
}

/* The state of a part with these numbers in its first cells, `count` of them in `in`. */
EXPORT(state_of_part) u32 state_of_part(u32 of_clocks, u32 count)
{
	return state_of_cells(of_clocks ? &clock_part : &shared_part, in, count);
}

/* What is in the cells of such a state: MOST_CELLS words. */
EXPORT(cells_at) u32 *cells_at(u32 of_clocks, u32 state)
{
	static u32 cells[MOST_CELLS];
	struct part *p = of_clocks ? &clock_part : &shared_part;
	for (u32 i = 0; i < MOST_CELLS; i++)
		cells[i] = in_cell(p, chunks_of(p, state), i);
	return cells;
}

/* How many states of a part have been met. */
EXPORT(met) u32 met_states(u32 of_clocks)
{
	return (of_clocks ? clock_part : shared_part).states.count;
}

/* Bytes of memory that are taken. */
EXPORT(memory_taken) u32 memory_taken(void) { return at_end; }

/* The start: a node for each CPU in `in`. */
EXPORT(start_at) void start_at(u32 of_shared, u32 of_clocks)
{
	for (u32 i = 0; i < cpus; i++)
		first_nodes[i] = in[i];
	first_shared = of_shared;
	first_clocks = of_clocks;
}

/*
 * What goes to and fro is words in memory, as a call with numbers takes Python three times as long. `report`
 * begins with how many words Python has put into `in`; then comes, from here, what ended the search, how much
 * lacks, and that, in pairs.
 */
static u32 report[32 + 2 * MOST_OPTIONS];
EXPORT(report_at) u32 *report_at(void) { return report; }

static u32 *tell(u32 code)
{
	if (code == DONE || code >= BROKEN)
		lacks = 0;
	report[0] = 0;
	report[1] = code;
	report[2] = lacks;
	copy(report + 3, lacking, lacks * 8);
	return report + 3 + 2 * lacks;
}

static void reset(void)
{
	for (u32 i = 0; i < cpus; i++)
		now[i] = first_nodes[i];
	shared = first_shared;
	clocks = first_clocks;
}

/* Whether option `o` can happen now: if so it goes into `found`. What is not known yet is noted as lacking. */
static void offer(u32 o, u32 *found, u32 *n)
{
	struct option *option = &options[o];
	if (option->action != NOTHING) {
		struct entry *edge = edge_of(&shared_part, shared, option->action);
		if (!edge) {
			lacking[2 * lacks] = shared;
			lacking[2 * lacks++ + 1] = option->action;
			return;
		}
		if (edge->x == NOTHING)
			return;
		if (option->walks && (edge->x & FALSY || edge->x == option->cached))
			return;
	}
	found[(*n)++] = o;
}

/* LearnedMachine.options(cpu), behind the `n` in `found`. */
static u32 options_of(u32 cpu, u32 *found, u32 n)
{
	struct node *node = &nodes[now[cpu]];
	for (u32 o = node->first; o < node->first + node->count; o++)
		offer(o, found, &n);
	return n;
}

/* LearnedMachine.options: everything that can happen next into `found`; their number, -1 if edges lack. */
static i32 options_now(u32 *found)
{
	u32 n = 0;
	lacks = 0;
	for (u32 c = 0; c < cpus; c++)
		n = options_of(c, found, n);
	return lacks ? -1 : (i32)n;
}

static int lack(int code, u32 a, u32 b)
{
	lacks = 1;
	lacking[0] = a;
	lacking[1] = b;
	return code;
}

/* LearnedMachine.take: DONE, BROKEN with the rule, or what lacks; then nothing has happened. */
static int take_option(u32 o, u32 *rule)
{
	struct option *option = &options[o];
	u32 to, event, broken, first = 0, next = shared, later = clocks;
	if (option->action == NOTHING) {
		if (option->to == NOTHING)
			return lack(LACKS_OWN, o, 0);
		to = option->to;
		event = option->event;
		broken = option->broken;
	} else {
		struct entry *edge = edge_of(&shared_part, shared, option->action);
		struct entry *way = find(&successors, o, edge->x);
		if (!way)
			return lack(LACKS_ANSWERED, o, edge->x);
		first = edge->z;
		next = edge->y;
		to = way->x;
		event = way->y;
		broken = way->z;
	}
	if (event != NOTHING) {
		struct entry *seen = edge_of(&clock_part, clocks, event);
		if (!seen)
			return lack(LACKS_CLOCK, clocks, event);
		later = seen->y;
		if (!first)
			first = seen->z;
	}
	now[option->cpu] = to;
	shared = next;
	clocks = later;
	*rule = first ? first : broken;
	return *rule ? BROKEN : DONE;
}

/* LearnedMachine.verdict, at an end: DONE, BROKEN with the rule, or what lacks. */
static int verdict_now(u32 *rule)
{
	u32 flags = IDLE;
	*rule = 0;
	for (u32 c = 0; c < cpus; c++) {
		u32 own = nodes[now[c]].flags;
		if (own & DEAD)
			return DONE;
		flags &= own;
	}
	/* Neither dead nor at its end: a deadlock, which a user may not want to hear of. */
	u32 keys[2][2] = {{flags ? shared : 0, flags ? OF_SHARED : OF_DEADLOCK}, {clocks, OF_CLOCKS}};
	for (u32 i = 0; i < (flags ? 2 : 1); i++) {
		struct entry *one = find(&verdicts, keys[i][0], keys[i][1]);
		if (!one)
			return lack(LACKS_VERDICT, keys[i][0], keys[i][1]);
		*rule = one->x;
		if (one->x)
			return BROKEN;
	}
	return DONE;
}
