/*
 * The user accesses of all CPUs of a timed run, in the order of time, until Python has to do something: hits,
 * and walks that find an entry which they need not change. The reference is TimedEngine.run.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

#define EXPORT(name) __attribute__((export_name(#name)))
#define WASM_PAGE 65536u
#define MOST_WAYS 256
#define NUMBER_BITS 12
#define NUMBER ((1u << NUMBER_BITS) - 1)
#define NEVER (1ull << 62)
#define LATE (NEVER >> (NUMBER_BITS + 1)) /* ns: from then on Python goes on, as keys may be too large */
#define NONE (~0ull)

#include "caches.c"

extern u8 __heap_base;
static u32 at_end;

static void *take(u64 bytes)
{
	if (!at_end)
		at_end = ((u32)(unsigned long)&__heap_base + 15u) & ~15u;
	u32 from = at_end;
	u64 end = from + ((bytes + 15u) & ~15ull);
	u64 have = (u64)__builtin_wasm_memory_size(0) * WASM_PAGE;
	if (end > have && __builtin_wasm_memory_grow(0, (u32)((end - have + WASM_PAGE - 1) / WASM_PAGE)) == (u32)-1)
		__builtin_trap(); /* 4 GiB are used up */
	at_end = (u32)end;
	return (void *)(unsigned long)from;
}

enum { AWAY, TOUCHING, ENDED, INTERRUPTED };

/* What `touches.py` reads and writes comes first, in its order. Times in ns; `fraction` in ps beyond the clock. */
struct cpu {
	u64 state, clock, fraction, arrival, at, stop, pcid, mm;
	u64 accesses, walks, refills;
	struct tlb tlb;
	u64 room; /* accesses that the buffer holds */
	u64 table_key;
	const u64 *table;
};

static struct cpu *cpus;
static u32 count;
static u64 fast, slow, second_level, slow_from, walk_ns;
static long long ahead;
static u64 shared[3]; /* whether walks are done here; what `go` tells besides */

/* --- page tables: a copy of the entries that a read needs not change -------------------------------- */

static struct {
	u64 key;
	u64 *entries;
} *tables;
static u32 table_mask, table_count;

static u32 slot_of(u64 key)
{
	u32 i = (u32)(key * 0x9e3779b97f4a7c15ull >> 40) & table_mask;
	while (tables[i].key != NOBODY && tables[i].key != key)
		i = (i + 1) & table_mask;
	return i;
}

static void make_tables(u32 size)
{
	tables = take((u64)size * sizeof *tables);
	table_mask = size - 1;
	for (u32 i = 0; i < size; i++)
		tables[i].key = NOBODY;
}

/* Where the entries of this table are: `key` is mm << 42 | vpn >> 9. */
EXPORT(table) u64 table(u64 key)
{
	if (2 * ++table_count > table_mask) {
		u32 size = table_mask + 1;
		__typeof__(tables) old = tables;
		make_tables(2 * size);
		for (u32 i = 0; i < size; i++)
			if (old[i].key != NOBODY)
				tables[slot_of(old[i].key)] = old[i];
	}
	u32 i = slot_of(key);
	if (tables[i].key == NOBODY) {
		u64 *entries = take(512 * sizeof *entries);
		for (u32 at = 0; at < 512; at++)
			entries[at] = 0;
		tables[i].key = key;
		tables[i].entries = entries;
	}
	return (u64)(unsigned long)tables[i].entries;
}

static u64 entry_of(struct cpu *c, u64 vpn)
{
	u64 key = c->mm << 42 | vpn >> 9;
	if (c->table_key != key) {
		u32 i = slot_of(key);
		if (tables[i].key != key)
			return 0;
		c->table_key = key;
		c->table = tables[i].entries;
	}
	return c->table[vpn & 511];
}

/* --- making it ------------------------------------------------------------------------------------- */

static void make_level(struct level *l, u64 sets, u32 ways)
{
	l->ways = take(sets * ways * sizeof(struct way));
	l->mask = sets - 1;
	l->count = ways;
	for (u64 i = 0; i < sets * ways; i++)
		l->ways[i].key = NOBODY;
}

/* Where the CPUs are; there are `of` of them, one struct after another. */
EXPORT(make) u64 make(u64 of, u64 l1_sets, u64 l1_ways, u64 l2_sets, u64 l2_ways, u64 order, u64 counting)
{
	count = (u32)of;
	pmd_order = (u32)order;
	cpus = take(count * sizeof *cpus);
	make_tables(64);
	for (u32 i = 0; i < count; i++) {
		struct cpu *c = cpus + i;
		__builtin_memset(c, 0, sizeof *c);
		c->table_key = NOBODY;
		make_level(&c->tlb.l1, l1_sets, (u32)l1_ways);
		make_level(&c->tlb.l2, l2_sets, (u32)l2_ways);
		c->tlb.lost = 0;
		if (!counting)
			continue;
		c->tlb.lost = take(l2_sets * sizeof(struct lost));
		for (u64 at = 0; at < l2_sets; at++) {
			c->tlb.lost[at].count = 0;
			c->tlb.lost[at].ways = take((2 * l2_ways + l1_ways) * sizeof(struct way));
		}
	}
	return (u64)(unsigned long)cpus;
}

EXPORT(size) u64 size(void)
{
	return sizeof *cpus;
}

EXPORT(shared_at) u64 shared_at(void)
{
	return (u64)(unsigned long)shared;
}

/* TouchPrice in ps, a walk in ns, and how far hits may run ahead: ns, or -1 for not at all. */
EXPORT(prices) void prices(u64 one, u64 other, u64 more, u64 from, u64 walk, long long before)
{
	fast = one;
	slow = other;
	second_level = more;
	slow_from = from;
	walk_ns = walk;
	ahead = before;
}

/* Where a CPU's accesses go, if there are so many. */
EXPORT(room) u64 room(u64 number, u64 accesses)
{
	struct cpu *c = cpus + number;
	if (c->room < accesses) {
		c->room = 2 * accesses;
		c->accesses = (u64)(unsigned long)take(c->room * sizeof(u64));
	}
	return c->accesses;
}

/* --- accesses -------------------------------------------------------------------------------------- */

/* Tlb.touch_for: hits from `at` on while less than `budget` is spent; what was. */
static u64 touch(struct cpu *c, u64 budget)
{
	const u64 *accesses = (const u64 *)(unsigned long)c->accesses;
	struct tlb *t = &c->tlb;
	u64 tag = c->pcid << PCID_SHIFT, at = c->at, stop = c->stop, spent = 0;
	while (at < stop && spent < budget) {
		u64 access = accesses[at], vpn = access >> 1, pte;
		const struct way *set = set_of(&t->l1, vpn);
		if (set->key == (tag | vpn)) {
			pte = set->pte;
		} else {
			int second;
			pte = lookup(t, tag, vpn, &second);
			if (!pte)
				break;
			if (second)
				spent += second_level;
		}
		if (access & 1 && (pte & (RW | DIRTY)) != (RW | DIRTY))
			break;
		at++;
		spent += pte < slow_from ? fast : slow;
	}
	c->at = at;
	return spent;
}

static void pass(struct cpu *c, u64 spent)
{
	u64 all = c->fraction + spent;
	c->clock += all / 1000;
	c->fraction = all % 1000;
}

/* This CPU is the first, `others` the next one's key: as far as it may go. */
static void go_on(struct cpu *c, u32 number, u64 others)
{
	u64 safe = (others >> NUMBER_BITS) + (ahead >= 0 ? (u64)ahead : number < (others & NUMBER));
	for (;;) {
		if (c->arrival <= c->clock || c->clock >= LATE) {
			c->state = INTERRUPTED;
			return;
		}
		if (c->at == c->stop) {
			c->state = ENDED;
			return;
		}
		int first = (c->clock << NUMBER_BITS | number) <= others;
		u64 bound = safe < c->arrival ? safe : c->arrival;
		if (bound <= c->clock) {
			if (!first)
				return;
			bound = c->clock + 1;
		}
		if (bound > LATE)
			bound = LATE;
		u64 budget = (bound - c->clock) * 1000 - c->fraction;
		u64 spent = touch(c, budget);
		pass(c, spent);
		if (c->at == c->stop) {
			c->state = ENDED;
			return;
		}
		if (spent >= budget)
			continue;
		u64 access = ((const u64 *)(unsigned long)c->accesses)[c->at], entry;
		if (access & 1) {
			c->state = ENDED;
			return;
		}
		if ((c->clock << NUMBER_BITS | number) > others)
			return;
		if (!shared[0] || !(entry = entry_of(c, access >> 1))) {
			c->state = ENDED;
			return;
		}
		c->walks++;
		c->refills += insert(&c->tlb, c->pcid << PCID_SHIFT, access >> 1, entry);
		pass(c, entry < slow_from ? fast : slow);
		c->clock += walk_ns;
		c->at++;
	}
}

/*
 * Until Python has to go on with one of the CPUs, which is answered and here no more, or whoever has the key
 * `limit` (clock << 12 | number) is first; then NONE is. shared[1]: the smallest key of all others. shared[2]:
 * why the answered one stopped.
 */
EXPORT(go) u64 go(u64 limit)
{
	for (;;) {
		u64 first = limit, others = NEVER;
		u32 who = count;
		for (u32 i = 0; i < count; i++) {
			if (cpus[i].state == AWAY)
				continue;
			u64 key = cpus[i].clock << NUMBER_BITS | i;
			if (key < first) {
				others = first;
				first = key;
				who = i;
			} else if (key < others) {
				others = key;
			}
		}
		struct cpu *c = cpus + who;
		if (who < count && c->state == TOUCHING) {
			go_on(c, who, others);
			continue;
		}
		shared[1] = others;
		if (who == count)
			return NONE;
		shared[2] = c->state;
		c->state = AWAY;
		return who;
	}
}

/* --- a TLB, for Python: 0 is a miss ----------------------------------------------------------------- */

EXPORT(tlb_lookup) u64 tlb_lookup(u64 number, u64 pcid, u64 vpn)
{
	int second;
	return lookup(&cpus[number].tlb, pcid << PCID_SHIFT, vpn, &second);
}

EXPORT(tlb_insert) void tlb_insert(u64 number, u64 pcid, u64 vpn, u64 pte)
{
	cpus[number].refills += insert(&cpus[number].tlb, pcid << PCID_SHIFT, vpn, pte);
}

EXPORT(tlb_fault) void tlb_fault(u64 number, u64 pcid, u64 vpn)
{
	drop_page(&cpus[number].tlb, pcid << PCID_SHIFT, vpn);
}

EXPORT(tlb_flush) u64 tlb_flush(u64 number, u64 pcid)
{
	return drop_pcid(&cpus[number].tlb, pcid);
}

EXPORT(tlb_new_owner) void tlb_new_owner(u64 number, u64 pcid)
{
	lost_no_more(&cpus[number].tlb, pcid);
}

EXPORT(tlb_touch) u64 tlb_touch(u64 number, u64 budget)
{
	return touch(cpus + number, budget);
}

/* Where the ways of a level are. */
EXPORT(tlb_level) u64 tlb_level(u64 number, u64 second)
{
	struct tlb *t = &cpus[number].tlb;
	return (u64)(unsigned long)(second ? t->l2.ways : t->l1.ways);
}
