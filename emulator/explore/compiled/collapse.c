/*
 * Memory, tables, and the states of parts of the machine: what `footprints.py` keeps in trees.
 *
 * Memory is taken from the end of what there is and never given back before the whole graph is forgotten.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;

#define EXPORT(name) __attribute__((export_name(#name)))
#define MOST_CPUS 64
#define MOST_OPTIONS 4096 /* of one state */
#define NOTHING 0xffffffffu
#define PAGE 65536u

extern u8 __heap_base;
static u32 at_end;

static u32 take(u32 bytes)
{
	u32 from = at_end;
	u64 end = (u64)from + ((bytes + 15u) & ~15u);
	u64 have = (u64)__builtin_wasm_memory_size(0) * PAGE;
	if (end > have && __builtin_wasm_memory_grow(0, (u32)((end - have + PAGE - 1) / PAGE)) == (u32)-1)
		__builtin_trap(); /* 4 GiB are used up */
	at_end = (u32)end;
	return from;
}

/* --- tables: (a, b) -> three numbers ------------------------------------------------------------ */

struct entry {
	u32 a, b;
	u32 x, y, z;
};

struct table {
	struct entry *entries;
	u32 mask, used;
};

static u32 mixed(u32 a, u32 b)
{
	u64 h = ((u64)a << 32 | b) * 0x9e3779b97f4a7c15ull;
	return (u32)(h >> 32) ^ (u32)h;
}

static void make(struct table *t, u32 size)
{
	t->entries = (struct entry *)take(size * (u32)sizeof(struct entry));
	t->mask = size - 1;
	t->used = 0;
	for (u32 i = 0; i < size; i++)
		t->entries[i].a = NOTHING;
}

static struct entry *find(const struct table *t, u32 a, u32 b)
{
	u32 i = mixed(a, b) & t->mask;
	for (;; i = (i + 1) & t->mask) {
		struct entry *e = &t->entries[i];
		if (e->a == a && e->b == b)
			return e;
		if (e->a == NOTHING)
			return 0;
	}
}

static struct entry *put(struct table *t, u32 a, u32 b, u32 x, u32 y, u32 z)
{
	if (t->used * 2 > t->mask) {
		struct table old = *t;
		make(t, (old.mask + 1) * 4);
		for (u32 i = 0; i <= old.mask; i++) {
			struct entry *e = &old.entries[i];
			if (e->a != NOTHING)
				put(t, e->a, e->b, e->x, e->y, e->z);
		}
	}
	u32 i = mixed(a, b) & t->mask;
	while (t->entries[i].a != NOTHING && !(t->entries[i].a == a && t->entries[i].b == b))
		i = (i + 1) & t->mask;
	if (t->entries[i].a == NOTHING)
		t->used++;
	t->entries[i] = (struct entry){a, b, x, y, z};
	return &t->entries[i];
}

static void copy(void *to, const void *from, u32 bytes)
{
	__builtin_memcpy(to, from, bytes);
}

static u32 *grown(u32 *old, u32 used, u32 *have, u32 wanted)
{
	if (wanted <= *have)
		return old;
	*have = wanted * 2 < 1024 ? 1024 : wanted * 2;
	u32 *fresh = (u32 *)take(*have * 4);
	copy(fresh, old, used * 4);
	return fresh;
}

/* --- states of a part of the machine: what is shared, or the watchers -------------------------------- */

#define CHUNK_CELLS 16u /* cells in a chunk */
#define STATE_CHUNKS 32u /* chunks in a state */
#define MOST_CELLS (CHUNK_CELLS * STATE_CHUNKS)

/* Sequences of words, each kept once and known by its number. */
struct words {
	u32 size; /* of each */
	u32 *all, count, room;
	u32 *slots, mask; /* hash table: 0 free, else a number and one */
};

/*
 * A state is the numbers of its chunks, a chunk is the numbers in its cells. What an action comes to is a tree
 * (footprints.py): forks are cells, ways are what is there. A reference is twice the number of a fork, or twice
 * that of a leaf and one.
 */
struct part {
	struct words chunks, states;
	struct table roots; /* (action, 0) -> reference */
	struct table ways;  /* (fork, number) -> reference */
	u32 *forks, fork_count, fork_room; /* the cell of each */
	u32 *leaves, leaf_count, leaf_room; /* words: answer (NOTHING: not enabled), rule, changes, cell and number of each */
	struct table edges; /* (state, action) -> answer or NOTHING, next, rule */
};

#define DROPPED 0xfffffffeu /* a reference to what counts no more */

static struct part shared_part, clock_part;

static u32 hash_of(const u32 *w, u32 n)
{
	u64 h = n;
	for (u32 i = 0; i < n; i++) {
		h = (h ^ w[i]) * 0x9e3779b97f4a7c15ull;
		h ^= h >> 29;
	}
	return (u32)(h ^ (h >> 32));
}

static int same(const u32 *one, const u32 *other, u32 n)
{
	for (u32 i = 0; i < n; i++)
		if (one[i] != other[i])
			return 0;
	return 1;
}

static void place(struct words *t, u32 number)
{
	u32 i = hash_of(t->all + (u64)number * t->size, t->size) & t->mask;
	while (t->slots[i])
		i = (i + 1) & t->mask;
	t->slots[i] = number + 1;
}

/* The number of this sequence. */
static u32 kept(struct words *t, const u32 *w)
{
	for (u32 i = hash_of(w, t->size) & t->mask; t->slots[i]; i = (i + 1) & t->mask)
		if (same(t->all + (t->slots[i] - 1) * t->size, w, t->size))
			return t->slots[i] - 1;
	if (t->count * 2 > t->mask) {
		t->mask = t->mask * 2 + 1;
		t->slots = (u32 *)take((t->mask + 1) * 4);
		__builtin_memset(t->slots, 0, (t->mask + 1) * 4);
		for (u32 n = 0; n < t->count; n++)
			place(t, n);
	}
	t->all = grown(t->all, t->count * t->size, &t->room, (t->count + 1) * t->size);
	copy(t->all + t->count * t->size, w, t->size * 4);
	place(t, t->count);
	return t->count++;
}

static void make_words(struct words *t, u32 size)
{
	static const u32 nothing[STATE_CHUNKS];
	*t = (struct words){.size = size, .mask = 1023};
	t->slots = (u32 *)take(1024 * 4);
	__builtin_memset(t->slots, 0, 1024 * 4);
	kept(t, nothing);
}

static void make_part(struct part *p)
{
	make_words(&p->chunks, CHUNK_CELLS);
	make_words(&p->states, STATE_CHUNKS);
	make(&p->roots, 1024);
	make(&p->ways, 1024);
	make(&p->edges, 4096);
	p->fork_count = p->fork_room = p->leaf_count = p->leaf_room = 0;
}

static u32 *chunks_of(struct part *p, u32 state)
{
	return p->states.all + state * STATE_CHUNKS;
}

static u32 in_cell(struct part *p, const u32 *chunks, u32 cell)
{
	return p->chunks.all[chunks[cell / CHUNK_CELLS] * CHUNK_CELLS + cell % CHUNK_CELLS];
}

/* The state after `n` changes, pairs of cell and number sorted by cell. */
static u32 changed_state(struct part *p, u32 state, const u32 *changes, u32 n)
{
	u32 chunks[STATE_CHUNKS], cells[CHUNK_CELLS];
	if (!n)
		return state;
	copy(chunks, chunks_of(p, state), sizeof chunks);
	for (u32 i = 0; i < n;) {
		u32 at = changes[2 * i] / CHUNK_CELLS;
		copy(cells, p->chunks.all + chunks[at] * CHUNK_CELLS, sizeof cells);
		for (; i < n && changes[2 * i] / CHUNK_CELLS == at; i++)
			cells[changes[2 * i] % CHUNK_CELLS] = changes[2 * i + 1];
		chunks[at] = kept(&p->chunks, cells);
	}
	return kept(&p->states, chunks);
}

/* The state with these numbers in its first cells. */
static u32 state_of_cells(struct part *p, const u32 *numbers, u32 count)
{
	u32 cells[MOST_CELLS], chunks[STATE_CHUNKS];
	__builtin_memset(cells, 0, sizeof cells);
	copy(cells, numbers, count * 4);
	for (u32 i = 0; i < STATE_CHUNKS; i++)
		chunks[i] = kept(&p->chunks, cells + i * CHUNK_CELLS);
	return kept(&p->states, chunks);
}

/* What an action comes to in a state: its edge, 0 if that has to be learnt. */
static struct entry *edge_of(struct part *p, u32 state, u32 action)
{
	struct entry *known = find(&p->edges, state, action);
	if (known)
		return known;
	struct entry *way = find(&p->roots, action, 0);
	const u32 *chunks = chunks_of(p, state);
	while (way && !(way->x & 1) && way->x != DROPPED)
		way = find(&p->ways, way->x >> 1, in_cell(p, chunks, p->forks[way->x >> 1]));
	if (!way || way->x == DROPPED)
		return 0;
	const u32 *leaf = p->leaves + (way->x >> 1);
	u32 next = leaf[0] == NOTHING ? 0 : changed_state(p, state, leaf + 3, leaf[2]);
	return put(&p->edges, state, action, leaf[0], next, leaf[1]);
}

/* A path: action, number of cells read, each and what was there, then a leaf. */
static u32 *add_path(struct part *p, u32 *w)
{
	struct table *table = &p->roots;
	u32 a = *w++, b = 0, n = *w++;
	for (; n; n--, w += 2) {
		struct entry *way = find(table, a, b);
		if (!way || way->x == DROPPED || way->x & 1) { /* the end of a path may have been put off */
			p->forks = grown(p->forks, p->fork_count, &p->fork_room, p->fork_count + 1);
			p->forks[p->fork_count] = w[0];
			way = put(table, a, b, p->fork_count++ << 1, 0, 0);
		}
		table = &p->ways;
		a = way->x >> 1;
		b = w[1];
	}
	u32 size = 3 + 2 * w[2];
	p->leaves = grown(p->leaves, p->leaf_count, &p->leaf_room, p->leaf_count + size);
	copy(p->leaves + p->leaf_count, w, size * 4);
	put(table, a, b, p->leaf_count << 1 | 1, 0, 0);
	p->leaf_count += size;
	return w + size;
}
