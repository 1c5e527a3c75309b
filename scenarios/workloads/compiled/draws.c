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
	keep();
}

static u64 page(u64 pages, u64 hot, u64 window)
{
	return chance() < threads.hot_share ? (window + below((u32)hot)) % pages : below((u32)pages);
}

EXPORT(draw_threads) void draw_threads(void)
{
	put_back();
	for (u64 i = 0; i < threads.count; i++) {
		if (chance() < threads.heap_share) {
			u64 at = threads.heap_base + page(threads.heap, threads.heap_hot, threads.window);
			drawn[i] = at << 1 | (chance() < threads.write_share);
		} else {
			drawn[i] = (threads.table_base + page(threads.table, threads.table_hot, threads.window)) << 1;
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
			*next++ = (lookups.base + (u64)(chance() * (double)lookups.grid)) << 1;
		*next++ = (lookups.base + lookups.grid + (u64)(chance() * (double)lookups.index)) << 1;
	}
	keep();
}
