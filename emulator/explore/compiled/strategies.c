/*
 * The strategies of emulator/explore/strategies, choice by choice; where each comes from is said there.
 */
#define MOST_AGENTS (8 * MOST_CPUS)
#define MOST_POINTS 128
#define MOST_MEMBERS 8

enum { RANDOM, PCT, UNIFORM, DELAY };

struct member {
	u32 kind, bound; /* bound: depth of PCT, delays */
	u32 small;       /* of PCT: see sample() */
	u32 longest, decisions;
	/* PCT */
	i32 priorities[MOST_AGENTS];
	u32 points[MOST_POINTS], points_left, next, changes;
	/* delays use `points`, too */
	u32 turn;
	/* uniform */
	u32 runs, any;
	u64 totals[MOST_AGENTS], taken[MOST_AGENTS];
	double estimates[MOST_AGENTS];
};

static struct member members[MOST_MEMBERS];
static u32 member_count, leader, portfolio, kinds, walker;
static u32 first_guess;
static double walk_accepted, least_walker;

static u32 agents(void) { return kinds * cpus; }

/* sorted(x, reverse=True) */
static void sort_down(u32 *x, u32 n)
{
	for (u32 i = 1; i < n; i++) {
		u32 v = x[i], j = i;
		for (; j && x[j - 1] < v; j--)
			x[j] = x[j - 1];
		x[j] = v;
	}
}

static void pct_next(struct member *m)
{
	m->next = m->points_left ? m->points[--m->points_left] : 0;
}

static u32 pool_at, pool_room;

static u32 *pool(u32 words)
{
	if (words > pool_room) {
		pool_room = words * 2;
		pool_at = take(pool_room * 4);
	}
	return (u32 *)pool_at;
}

static void begin(struct member *m)
{
	u32 n = agents();
	if (m->longest < m->decisions)
		m->longest = m->decisions;
	m->decisions = 0;
	m->changes = 0;
	u32 length = m->longest ? m->longest : first_guess;
	if (m->kind == PCT) {
		for (u32 i = 0; i < n; i++)
			m->priorities[i] = (i32)(m->bound + i);
		shuffle(m->priorities, n);
		if (length < m->bound)
			length = m->bound;
		m->points_left = m->bound - 1;
		sample(m->points, length, m->points_left, m->small, pool(length < m->small ? length : m->small));
		sort_down(m->points, m->points_left);
		pct_next(m);
	} else if (m->kind == DELAY) {
		m->turn = (u32)(chance() * n);
		m->points_left = m->bound;
		for (u32 i = 0; i < m->bound; i++)
			m->points[i] = 1 + (u32)(chance() * length);
		sort_down(m->points, m->points_left);
	} else if (m->kind == UNIFORM) {
		if (m->any)
			m->runs++;
		m->any = 1;
		u32 runs = m->runs ? m->runs : 1;
		for (u32 i = 0; i < n; i++) {
			m->totals[i] += m->taken[i];
			m->taken[i] = 0;
			m->estimates[i] = (double)m->totals[i] / runs;
		}
	}
}

static u32 agent(u32 option) { return options[option].agent; }

static u32 one_of(const u32 *found, u32 n, u32 who)
{
	u32 first = 0, many = 0;
	for (u32 i = 0; i < n; i++)
		if (agent(found[i]) == who) {
			if (!many++)
				first = i;
		}
	if (many == 1)
		return found[first];
	u32 nth = (u32)(chance() * many);
	for (u32 i = first;; i++)
		if (agent(found[i]) == who && !nth--)
			return found[i];
}

static u32 pct_leader(const struct member *m, const u32 *found, u32 n)
{
	u32 best = agent(found[0]);
	for (u32 i = 1; i < n; i++)
		if (m->priorities[agent(found[i])] > m->priorities[best])
			best = agent(found[i]);
	return best;
}

static u32 in_turn(const u32 *found, u32 n, u32 turn)
{
	u32 all = agents(), least = all;
	for (u32 i = 0; i < n; i++) {
		u32 far = (agent(found[i]) + all - turn % all) % all;
		if (far < least)
			least = far;
	}
	return (turn + least) % all;
}

static u32 choose_random(const u32 *found, u32 n)
{
	u32 option = found[(u32)(chance() * n)];
	if (agent(option) % kinds != walker || chance() < walk_accepted)
		return option;
	u32 others = 0;
	for (u32 i = 0; i < n; i++)
		others += agent(found[i]) % kinds != walker;
	if (!others)
		return option;
	u32 nth = (u32)(chance() * others);
	for (u32 i = 0;; i++)
		if (agent(found[i]) % kinds != walker && !nth--)
			return found[i];
}

static u32 choose_pct(struct member *m, const u32 *found, u32 n)
{
	m->decisions++;
	u32 best = pct_leader(m, found, n);
	if (m->decisions == m->next) {
		m->changes++;
		m->priorities[best] = (i32)m->bound - (i32)m->changes;
		pct_next(m);
		best = pct_leader(m, found, n);
	}
	return one_of(found, n, best);
}

static u32 choose_delayed(struct member *m, const u32 *found, u32 n)
{
	m->decisions++;
	m->turn = in_turn(found, n, m->turn);
	while (m->points_left && m->points[m->points_left - 1] <= m->decisions) {
		m->points_left--;
		m->turn = in_turn(found, n, m->turn + 1);
	}
	return one_of(found, n, m->turn);
}

static u32 choose_uniform(struct member *m, const u32 *found, u32 n)
{
	static u32 who[MOST_OPTIONS];
	static double bounds[MOST_OPTIONS];
	u32 count = 0, last = NOTHING;
	double total = 0;
	for (u32 i = 0; i < n; i++) {
		u32 a = agent(found[i]);
		if (a == last)
			continue;
		last = a;
		double left = m->estimates[a] - (double)m->taken[a];
		double least = a % kinds == walker ? least_walker : 1.0;
		total += left > least ? left : least;
		who[count] = a;
		bounds[count++] = total;
	}
	double at = chance() * total;
	u32 i = 0; /* bisect_right */
	while (i < count - 1 && bounds[i] <= at)
		i++;
	return one_of(found, n, who[i]);
}

static u32 choose(const u32 *found, u32 n)
{
	struct member *m = &members[leader];
	u32 option = found[0];
	if (n > 1) {
		switch (m->kind) {
		case RANDOM:
			option = choose_random(found, n);
			break;
		case PCT:
			option = choose_pct(m, found, n);
			break;
		case DELAY:
			option = choose_delayed(m, found, n);
			break;
		default:
			option = choose_uniform(m, found, n);
		}
	} else if (m->kind == DELAY) {
		m->turn = agent(option);
	}
	if (m->kind == UNIFORM)
		m->taken[agent(option)]++;
	return option;
}

/* A fresh strategy. `in`: kinds of agents, the walkers' kind, the first guess, then kind, bound, small each. */
EXPORT(strategy) void strategy(u32 count, u32 is_portfolio, double accepted, double least)
{
	u32 *p = in;
	kinds = p[0];
	walker = p[1];
	first_guess = p[2];
	walk_accepted = accepted;
	least_walker = least;
	member_count = count;
	portfolio = is_portfolio;
	leader = 0;
	__builtin_memset(members, 0, sizeof members);
	for (u32 i = 0; i < count; i++) {
		members[i].kind = p[3 + 3 * i];
		members[i].bound = p[4 + 3 * i];
		members[i].small = p[5 + 3 * i];
	}
}
