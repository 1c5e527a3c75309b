/*
 * The TLBs of all CPUs, as `hardware/tlb.py` and `hardware/refills.py` have them: two levels of sets, the
 * newest way of a set first, and for each set of the second level what full flushes have dropped of it.
 */
#define PCID_SHIFT 52
#define HUGE (1ull << 51)
#define PRESENT 1ull
#define RW 2ull
#define DIRTY 64ull
#define PSE 128ull
#define NOBODY (~0ull) /* the key of a way that is empty */

struct way {
	u64 key, pte;
};

struct level {
	struct way *ways;
	u64 mask;
	u32 count; /* ways of a set */
};

struct lost {
	u32 count;
	struct way *ways; /* the oldest first */
};

struct tlb {
	struct level l1, l2;
	struct lost *lost; /* of each set of the second level; none where nobody counts */
	u64 huge_seen;
};

static u32 pmd_order;

static struct way *set_of(const struct level *l, u64 page)
{
	return l->ways + (page & l->mask) * l->count;
}

/* Where it is in the set; `count` if nowhere. */
static u32 place(const struct way *set, u32 count, u64 key)
{
	u32 i = 0;
	while (i < count && set[i].key != key)
		i++;
	return i;
}

/* The way at `i`, or the last, makes room: this one becomes the newest. */
static void newest(struct way *set, u32 i, u64 key, u64 pte)
{
	for (; i; i--)
		set[i] = set[i - 1];
	set[0].key = key;
	set[0].pte = pte;
}

static void put(const struct level *l, u64 page, u64 key, u64 pte)
{
	struct way *set = set_of(l, page);
	u32 i = 0;
	while (i + 1 < l->count && set[i].key != key && set[i].key != NOBODY)
		i++;
	newest(set, i, key, pte);
}

/* The entry, which becomes the newest of its set; 0 if it is not there. */
static u64 used(const struct level *l, u64 page, u64 key)
{
	struct way *set = set_of(l, page);
	if (set[0].key == key)
		return set[0].pte;
	u32 i = place(set, l->count, key);
	if (i == l->count)
		return 0;
	u64 pte = set[i].pte;
	newest(set, i, key, pte);
	return pte;
}

static void forget(const struct level *l, u64 page, u64 key)
{
	struct way *set = set_of(l, page);
	u32 i = place(set, l->count, key);
	if (i == l->count)
		return;
	for (; i + 1 < l->count; i++)
		set[i] = set[i + 1];
	set[i].key = NOBODY;
}

static u32 present(const struct way *set, u32 count)
{
	return place(set, count, NOBODY);
}

/* Tlb.lookup: the entry, 0 on a miss; whether it came from the second level. */
static u64 lookup(struct tlb *t, u64 tag, u64 vpn, int *second)
{
	u64 key = tag | vpn;
	*second = 0;
	u64 pte = used(&t->l1, vpn, key);
	if (pte)
		return pte;
	u64 huge = vpn >> pmd_order;
	if (t->huge_seen && (pte = used(&t->l1, huge, tag | HUGE | huge)))
		return pte;
	*second = 1;
	if ((pte = used(&t->l2, vpn, key))) {
		put(&t->l1, vpn, key, pte);
		return pte;
	}
	if (t->huge_seen && (pte = used(&t->l2, huge, tag | HUGE | huge)))
		put(&t->l1, huge, tag | HUGE | huge, pte);
	return pte;
}

/* --- what full flushes have dropped --------------------------------------------------------------- */

static int never_lost(struct lost *lost, u64 key, u64 *pte)
{
	u32 i = place(lost->ways, lost->count, key);
	if (i == lost->count)
		return 0;
	*pte = lost->ways[i].pte;
	lost->count--;
	for (; i < lost->count; i++)
		lost->ways[i] = lost->ways[i + 1];
	return 1;
}

static void lose(struct lost *lost, struct way what)
{
	u32 i = place(lost->ways, lost->count, what.key);
	lost->count += i == lost->count;
	lost->ways[i] = what;
}

/* Lost and present are no more than there are ways: the oldest lost go. */
static void limit_lost(struct tlb *t, u64 at)
{
	struct lost *lost = t->lost + at;
	u32 have = lost->count + present(t->l2.ways + at * t->l2.count, t->l2.count);
	if (have <= t->l2.count)
		return;
	u32 too_many = have - t->l2.count;
	if (too_many > lost->count)
		too_many = lost->count;
	lost->count -= too_many;
	for (u32 i = 0; i < lost->count; i++)
		lost->ways[i] = lost->ways[i + too_many];
}

/* Tlb.insert; how many refills that was. */
static u64 insert(struct tlb *t, u64 tag, u64 vpn, u64 pte)
{
	u64 key = tag, was;
	if (pte & PSE) {
		t->huge_seen = 1;
		vpn >>= pmd_order;
		key |= HUGE;
	}
	key |= vpn;
	put(&t->l1, vpn, key, pte);
	put(&t->l2, vpn, key, pte);
	u64 at = vpn & t->l2.mask;
	if (!t->lost || !t->lost[at].count)
		return 0;
	u64 found = never_lost(t->lost + at, key, &was) && was == pte;
	limit_lost(t, at);
	return found;
}

/* Tlb.fault */
static void drop_page(struct tlb *t, u64 tag, u64 vpn)
{
	u64 key = tag | vpn, huge = vpn >> pmd_order, was;
	forget(&t->l1, vpn, key);
	forget(&t->l2, vpn, key);
	if (t->huge_seen) {
		forget(&t->l1, huge, tag | HUGE | huge);
		forget(&t->l2, huge, tag | HUGE | huge);
	}
	if (t->lost) {
		never_lost(t->lost + (vpn & t->l2.mask), key, &was);
		never_lost(t->lost + (huge & t->l2.mask), tag | HUGE | huge, &was);
	}
}

/* Drop from a set what is of the PCID, into `dropped`, the oldest first; how many. */
static u32 drop_from(struct way *set, u32 count, u64 pcid, struct way *dropped)
{
	u32 kept = 0, gone = 0, end = present(set, count);
	for (u32 i = 0; i < end; i++)
		gone += set[i].key >> PCID_SHIFT == pcid;
	if (!gone)
		return 0;
	u32 left = gone;
	for (u32 i = 0; i < end; i++) {
		if (set[i].key >> PCID_SHIFT == pcid)
			dropped[--left] = set[i];
		else
			set[kept++] = set[i];
	}
	for (; kept < end; kept++)
		set[kept].key = NOBODY;
	return gone;
}

/* CountingTlb._drop: how many entries that were. */
static u64 drop_pcid(struct tlb *t, u64 pcid)
{
	static struct way gone[MOST_WAYS];
	u64 dropped = 0;
	for (u64 at = 0; at <= t->l2.mask; at++) {
		u32 count = drop_from(t->l2.ways + at * t->l2.count, t->l2.count, pcid, gone);
		dropped += count;
		if (!t->lost || !count)
			continue;
		for (u32 i = 0; i < count; i++)
			lose(t->lost + at, gone[i]);
		limit_lost(t, at);
	}
	for (u64 at = 0; at <= t->l1.mask; at++) {
		u32 count = drop_from(t->l1.ways + at * t->l1.count, t->l1.count, pcid, gone);
		if (!t->lost)
			continue;
		/* All that share a set of the second level share one of the first. */
		u32 anew = 0;
		for (u32 i = 0; i < count; i++) {
			struct lost *lost = t->lost + (gone[i].key & (HUGE - 1) & t->l2.mask);
			if (place(lost->ways, lost->count, gone[i].key) < lost->count)
				continue;
			lose(lost, gone[i]);
			gone[anew++] = gone[i];
		}
		dropped += anew;
		for (u32 i = 0; i < anew; i++)
			limit_lost(t, gone[i].key & (HUGE - 1) & t->l2.mask);
	}
	return dropped;
}

/* The PCID has gone to another address space. */
static void lost_no_more(struct tlb *t, u64 pcid)
{
	for (u64 at = 0; at <= t->l2.mask; at++) {
		struct lost *lost = t->lost + at;
		u32 kept = 0;
		for (u32 i = 0; i < lost->count; i++)
			if (lost->ways[i].key >> PCID_SHIFT != pcid)
				lost->ways[kept++] = lost->ways[i];
		lost->count = kept;
	}
}
