/*
 * The accesses of threads, drawn as `tiering.py` and `xsbench.py` draw them: the same numbers of the same
 * generator, in the same order. An access is page << 1 | is_write.
 */
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;

#define EXPORT(name) __attribute__((export_name(#name)))
#define MOST 4096 /* accesses of a chunk */

static void copy(u32 *to, const u32 *from, u32 bytes)
{
	__builtin_memcpy(to, from, bytes);
}

#include "../../../emulator/explore/compiled/twister.c"

/* What Python hands over: a seed; the generator between two chunks; what is drawn from. And what is drawn. */
static u32 key[64], kept[N + 1];
static struct {
	u64 count, window, table_base, table, table_hot, heap_base, heap, heap_hot;
	double heap_share, hot_share, write_share;
} threads;
static struct {
	u64 count, base, grid, index, reads;
} lookups;
static u64 drawn[MOST];

#define WHERE(name) \
	EXPORT(name##_at) u64 name##_at(void) { return (u64)(unsigned long)&name; }
WHERE(key)
WHERE(kept)
WHERE(threads)
WHERE(lookups)
WHERE(drawn)

static void put_back(void)
{
	copy(state, kept, sizeof state);
	asked = kept[N];
}

static void keep(void)
{
	copy(kept, state, sizeof state);
	kept[N] = asked;
}

EXPORT(begin) void begin(u64 words)
{
	seed(key, (u32)words);
	asked = N;
	keep();
}

/* Unlike a schedule a thread draws many numbers: a block of words is made at once, four in each instruction. */
static u32 twisted(u32 there, u32 next, u32 far)
{
	u32 y = (there & 0x80000000u) | (next & 0x7fffffffu);
	return far ^ (y >> 1) ^ (-(y & 1) & 0x9908b0dfu);
}

static void make_words(void)
{
	for (u32 i = 0; i < N - M; i++)
		state[i] = twisted(state[i], state[i + 1], state[i + M]);
	for (u32 i = N - M; i < N - 1; i++)
		state[i] = twisted(state[i], state[i + 1], state[i + M - N]);
	state[N - 1] = twisted(state[N - 1], state[0], state[M - 1]);
	asked = 0;
}

static u32 next_word(void)
{
	if (asked == N)
		make_words();
	u32 y = state[asked++];
	y ^= y >> 11;
	y ^= (y << 7) & 0x9d2c5680u;
	y ^= (y << 15) & 0xefc60000u;
	return y ^ (y >> 18);
}

/* random() */
static double share(void)
{
	u32 a = next_word() >> 5, b = next_word() >> 6;
	return (a * 67108864.0 + b) * (1.0 / 9007199254740992.0);
}

/* _randbelow_with_getrandbits */
static u32 less_than(u32 n)
{
	u32 bits = 32 - (u32)__builtin_clz(n), r;
	do
		r = next_word() >> (32 - bits);
	while (r >= n);
	return r;
}

static u64 page(u64 pages, u64 hot, u64 window)
{
	if (share() >= threads.hot_share)
		return less_than((u32)pages);
	u64 at = window + less_than((u32)hot);
	return at < pages ? at : at - pages;
}

EXPORT(draw_threads) void draw_threads(void)
{
	put_back();
	/* A window is no larger than its region. */
	u64 in_table = threads.table ? threads.window % threads.table : 0;
	u64 in_heap = threads.heap ? threads.window % threads.heap : 0;
	for (u64 i = 0; i < threads.count; i++) {
		if (share() < threads.heap_share) {
			u64 at = threads.heap_base + page(threads.heap, threads.heap_hot, in_heap);
			drawn[i] = at << 1 | (share() < threads.write_share);
		} else {
			drawn[i] = (threads.table_base + page(threads.table, threads.table_hot, in_table)) << 1;
		}
	}
	keep();
}

EXPORT(draw_lookups) void draw_lookups(void)
{
	put_back();
	u64 *next = drawn;
	for (u64 i = 0; i < lookups.count; i++) {
		for (u64 j = 0; j < lookups.reads; j++)
			*next++ = (lookups.base + (u64)(share() * (double)lookups.grid)) << 1;
		*next++ = (lookups.base + lookups.grid + (u64)(share() * (double)lookups.index)) << 1;
	}
	keep();
}
