/*
 * Python's random.Random, as far as the strategies use it: Matsumoto, Nishimura: Mersenne Twister, ACM
 * TOMACS 1998, seeded by key, and what CPython's Lib/random.py makes of its numbers. Words are made when
 * they are asked for: a run asks for few.
 */
#define N 624
#define M 397

static u32 state[N];
static u32 asked;

static void seed(const u32 *key, u32 length)
{
	static u32 initial[N];
	if (!initial[0]) {
		initial[0] = 19650218u;
		for (u32 i = 1; i < N; i++)
			initial[i] = 1812433253u * (initial[i - 1] ^ (initial[i - 1] >> 30)) + i;
	}
	copy(state, initial, sizeof state);
	u32 i = 1, j = 0;
	for (u32 k = N > length ? N : length; k; k--) {
		state[i] = (state[i] ^ ((state[i - 1] ^ (state[i - 1] >> 30)) * 1664525u)) + key[j] + j;
		if (++i == N) {
			state[0] = state[N - 1];
			i = 1;
		}
		if (++j == length)
			j = 0;
	}
	for (u32 k = N - 1; k; k--) {
		state[i] = (state[i] ^ ((state[i - 1] ^ (state[i - 1] >> 30)) * 1566083941u)) - i;
		if (++i == N) {
			state[0] = state[N - 1];
			i = 1;
		}
	}
	state[0] = 0x80000000u;
	asked = 0;
}

static u32 word(void)
{
	u32 i = asked;
	u32 y = (state[i] & 0x80000000u) | (state[i + 1 == N ? 0 : i + 1] & 0x7fffffffu);
	y = state[i + M < N ? i + M : i + M - N] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
	state[i] = y;
	asked = i + 1 == N ? 0 : i + 1;
	y ^= y >> 11;
	y ^= (y << 7) & 0x9d2c5680u;
	y ^= (y << 15) & 0xefc60000u;
	return y ^ (y >> 18);
}

/* random(): 53 bits. */
static double chance(void)
{
	u32 a = word() >> 5, b = word() >> 6;
	return (a * 67108864.0 + b) * (1.0 / 9007199254740992.0);
}

/* _randbelow_with_getrandbits */
static u32 below(u32 n)
{
	u32 bits = 32 - (u32)__builtin_clz(n), r;
	do
		r = word() >> (32 - bits);
	while (r >= n);
	return r;
}

static void shuffle(i32 *x, u32 n)
{
	for (u32 i = n - 1; i > 0; i--) {
		u32 j = below(i + 1);
		i32 kept = x[i];
		x[i] = x[j];
		x[j] = kept;
	}
}

/* sample(range(1, n + 1), k) into `result`; `small` is the n up to which it draws from a list. */
static void sample(u32 *result, u32 n, u32 k, u32 small, u32 *pool)
{
	if (n <= small) {
		for (u32 i = 0; i < n; i++)
			pool[i] = i + 1;
		for (u32 i = 0; i < k; i++) {
			u32 j = below(n - i);
			result[i] = pool[j];
			pool[j] = pool[n - i - 1];
		}
		return;
	}
	for (u32 i = 0; i < k; i++) {
		u32 value, known;
		do {
			value = below(n) + 1;
			known = 0;
			for (u32 j = 0; j < i; j++)
				known |= result[j] == value;
		} while (known);
		result[i] = value;
	}
}
