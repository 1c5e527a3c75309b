/*
 * One state for all that swaps of alike CPUs make of it: `orbits.py`, with what `symmetry.py` has found out.
 */

#define MOST_SWAPS 15u
#define MOST_TIED 7u      /* CPUs that stand at one place */
#define MOST_ORDERS 5040u /* of all that do */

static u32 cpus; /* graph.c */
static u32 swap_count, swap_one[MOST_SWAPS], swap_other[MOST_SWAPS];
static u32 *node_images, node_images_room; /* of a node, by swap */
static u32 *ranks, ranks_room;             /* of a node: those with the same are counterparts */
static u32 cell_images[2][MOST_SWAPS][MOST_CELLS];
static struct table value_images;                 /* (part, swap and cell; number) -> number */
static u32 *state_images[2], state_images_room[2], state_images_made[2]; /* of a state, by swap */

static u32 value_at(u32 part, u32 swap, u32 cell)
{
	return (part * MOST_SWAPS + swap) * MOST_CELLS + cell;
}

static u32 image_of_state(u32 part, u32 swap, u32 state)
{
	struct part *p = part ? &clock_part : &shared_part;
	u32 at = state * swap_count + swap;
	if (at >= state_images_made[part]) {
		u32 made = state_images_made[part], wanted = (p->states.count + 1024) * swap_count;
		state_images[part] = grown(state_images[part], made, &state_images_room[part], wanted);
		for (u32 i = made; i < wanted; i++)
			state_images[part][i] = NOTHING;
		state_images_made[part] = wanted;
	}
	u32 *known = state_images[part] + at;
	if (*known == NOTHING) {
		u32 cells[MOST_CELLS];
		const u32 *chunks = chunks_of(p, state);
		__builtin_memset(cells, 0, sizeof cells);
		for (u32 i = 0; i < MOST_CELLS; i++) {
			u32 number = in_cell(p, chunks, i);
			if (!number)
				continue;
			struct entry *image = find(&value_images, value_at(part, swap, i), number);
			if (!image)
				__builtin_trap(); /* all that is met has counterparts */
			cells[cell_images[part][swap][i]] = image->x;
		}
		*known = state_of_cells(p, cells, MOST_CELLS);
	}
	return *known;
}

/* What a swap makes of a state: nodes, what is shared, clocks. */
static void swapped(u32 swap, u32 *state)
{
	u32 one = swap_one[swap], other = swap_other[swap];
	for (u32 c = 0; c < cpus; c++)
		state[c] = node_images[state[c] * MOST_SWAPS + swap];
	u32 kept_one = state[one];
	state[one] = state[other];
	state[other] = kept_one;
	state[cpus] = image_of_state(0, swap, state[cpus]);
	state[cpus + 1] = image_of_state(1, swap, state[cpus + 1]);
}

static int order_of(const u32 *one, const u32 *other)
{
	for (u32 i = 0; i < cpus + 2; i++)
		if (one[i] != other[i])
			return one[i] < other[i] ? -1 : 1;
	return 0;
}

/* Swaps of neighbours by which all orders of so many come about. */
static const u8 *plain_changes(u32 count)
{
	static u8 all[MOST_TIED + 1][MOST_ORDERS];
	static u32 made[MOST_TIED + 1];
	if (count > 1 && !made[count]) {
		const u8 *before = plain_changes(count - 1);
		u32 turns = 1, n = 0;
		for (u32 i = 2; i < count; i++)
			turns *= i;
		for (u32 turn = 0; turn < turns; turn++) {
			for (u32 i = 0; i + 1 < count; i++)
				all[count][n++] = (u8)(turn & 1 ? i : count - 2 - i);
			if (turn + 1 < turns)
				all[count][n++] = (u8)(before[turn] + !(turn & 1));
		}
		made[count] = n;
	}
	return all[count];
}

static u32 block_first[MOST_SWAPS], block_size[MOST_SWAPS], block_count;

static void try_orders(u32 block, u32 *state, u32 *best)
{
	if (block == block_count) {
		if (order_of(state, best) < 0)
			copy(best, state, (cpus + 2) * 4);
		return;
	}
	const u8 *changes = plain_changes(block_size[block]);
	u32 many = 1;
	for (u32 i = 2; i <= block_size[block]; i++)
		many *= i;
	try_orders(block + 1, state, best);
	for (u32 i = 0; i + 1 < many; i++) {
		swapped(block_first[block] + changes[i], state);
		try_orders(block + 1, state, best);
	}
}

/* The state in the place of all that swaps make of this one. */
static void least(u32 *state)
{
	u32 sorting = 1, fixed = 1, many = 1, other[MOST_CPUS + 2];
	while (sorting) {
		sorting = 0;
		for (u32 s = 0; s < swap_count; s++)
			if (ranks[state[swap_one[s]]] > ranks[state[swap_other[s]]]) {
				swapped(s, state);
				sorting = 1;
			}
	}
	block_count = 0;
	for (u32 s = 0; s < swap_count; s++) {
		if (ranks[state[swap_one[s]]] != ranks[state[swap_other[s]]])
			continue;
		if (fixed) {
			copy(other, state, (cpus + 2) * 4);
			swapped(s, other);
			fixed = order_of(state, other) == 0;
		}
		u32 b = block_count - 1;
		if (block_count && block_first[b] + block_size[b] - 1 == s && swap_other[s - 1] == swap_one[s])
			block_size[b]++;
		else {
			block_first[block_count] = s;
			block_size[block_count++] = 2;
		}
	}
	for (u32 b = 0; b < block_count; b++) {
		if (block_size[b] > MOST_TIED)
			return;
		for (u32 i = 2; i <= block_size[b]; i++)
			many *= i;
	}
	if (fixed || many > MOST_ORDERS)
		return;
	copy(other, state, (cpus + 2) * 4);
	try_orders(0, other, state);
}

static void forget_swaps(void)
{
	swap_count = node_images_room = ranks_room = 0;
	for (u32 part = 0; part < 2; part++)
		state_images_room[part] = state_images_made[part] = 0;
}

/*
 * What has been found out. SWAPS: how many, the two CPUs of each. IMAGE: swap, a node, its counterpart. RANK: node,
 * rank. CELL_IMAGE: part, swap, cell, its counterpart. VALUE_IMAGE: part, swap, cell, a number, its counterpart.
 */
static u32 *learn_swaps(u32 *p)
{
	forget_swaps();
	make(&value_images, 4096);
	swap_count = *p++;
	for (u32 i = 0; i < swap_count; i++) {
		swap_one[i] = *p++;
		swap_other[i] = *p++;
	}
	return p;
}

static void learn_image(u32 swap, u32 node, u32 image)
{
	u32 wanted = (node + 1) * MOST_SWAPS;
	node_images = grown(node_images, node_images_room, &node_images_room, wanted);
	node_images[node * MOST_SWAPS + swap] = image;
}
