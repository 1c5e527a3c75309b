/*
 * What the numbers of one share mean to another (`share.c`).
 *
 * Nodes have the same numbers everywhere. What is shared and the watchers' states each share puts together and
 * numbers itself; what is in their cells means the same everywhere. So who sends a state first says what its
 * numbers mean, to each share once, chunk by chunk.
 */

#define MOST_SHARES 64u

struct box {
	u32 *words, count, room;
};

static struct box meanings[MOST_SHARES]; /* of numbers in the box: table, number, words and how many */
static struct box told[4];         /* of each table: a bit for each share that knows what a number means */
static struct box heard[MOST_SHARES][4]; /* and what numbers of others are here */

static u32 *put_in(struct box *box, u32 words)
{
	box->words = grown(box->words, box->count, &box->room, box->count + words);
	box->count += words;
	return box->words + box->count - words;
}

static struct words *const tables[4] = {
	&shared_part.chunks, &shared_part.states, &clock_part.chunks, &clock_part.states
};

/* Entry `at` of a box whose entries have so many words, zero where there was none. */
static u32 *entry_in(struct box *box, u32 at, u32 words)
{
	u32 before = box->count;
	if (before < (at + 1) * words) {
		put_in(box, (at + 1) * words - before);
		__builtin_memset(box->words + before, 0, (box->count - before) * 4);
	}
	return box->words + at * words;
}

static void say(u32 to, u32 t, u32 number)
{
	u32 *mask = entry_in(&told[t], number, MOST_SHARES / 32) + to / 32;
	if (!number || *mask >> to % 32 & 1)
		return;
	*mask |= 1u << to % 32;
	u32 n = tables[t]->size;
	const u32 *words = tables[t]->all + number * n;
	while (n && !words[n - 1])
		n--;
	if (t & 1)
		for (u32 i = 0; i < n; i++)
			say(to, t - 1, words[i]);
	u32 *p = put_in(&meanings[to], 3 + n);
	p[0] = t;
	p[1] = number;
	p[2] = n;
	copy(p + 3, words, n * 4);
}

static u32 meant(u32 from, u32 t, u32 number)
{
	return number ? *entry_in(&heard[from][t], number, 1) : 0;
}

static void hear(u32 from, const u32 *p, const u32 *end)
{
	for (; p < end; p += 3 + p[2]) {
		u32 words[STATE_CHUNKS] = {0};
		copy(words, p + 3, p[2] * 4);
		if (p[0] & 1)
			for (u32 i = 0; i < p[2]; i++)
				words[i] = meant(from, p[0] - 1, words[i]);
		*entry_in(&heard[from][p[0]], p[1], 1) = kept(tables[p[0]], words);
	}
}
