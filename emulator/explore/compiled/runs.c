/*
 * Runs of a strategy (`search.py`), one after another, until a rule breaks, something has to be learnt, or
 * it is time to look whether to stop. A run that was left for learning goes on where it was.
 */
static u32 *keys, *key; /* the runs' seeds: length, then that many words; the next run's */
static u32 key_room;
static u32 runs_left, running, most_steps, left;
static u32 chosen; /* an option whose edges are still being learnt */
static u64 steps;
static u32 cut, runs;

static void forget_runs(void)
{
	key_room = pool_room = 0;
	running = runs_left = 0;
}

/* Runs to do: their seeds are in `in`. */
EXPORT(begin_runs) void begin_runs(u32 count, u32 words, u32 steps_of_a_run)
{
	if (words > key_room) {
		key_room = words * 2;
		keys = (u32 *)take(key_room * 4);
	}
	copy(keys, in, words * 4);
	key = keys;
	runs_left = count;
	most_steps = steps_of_a_run;
	running = 0;
	steps = 0;
	cut = runs = 0;
}

static void over(void)
{
	running = 0;
	runs++;
	steps += most_steps - left;
}

static int search(void)
{
	static u32 found[MOST_OPTIONS];
	while (running || runs_left) {
		if (!running) {
			reset();
			seed(key + 1, key[0]);
			key += key[0] + 1;
			runs_left--;
			leader = portfolio ? (u32)(chance() * member_count) : 0;
			begin(&members[leader]);
			left = most_steps;
			length = 0;
			chosen = NOTHING;
			running = 1;
		}
		for (;;) {
			if (chosen == NOTHING) {
				i32 n = options_now(found);
				if (n < 0)
					return LACKS_SHARED;
				if (!n) {
					u32 rule;
					int verdict = verdict_now(&rule);
					if (verdict == LACKS_VERDICT)
						return verdict;
					over();
					if (verdict == BROKEN)
						return BROKEN;
					break;
				}
				if (!left) {
					cut++;
					over();
					break;
				}
				left--;
				chosen = choose(found, (u32)n);
			}
			u32 rule;
			int taken = take_option(chosen, &rule);
			if (taken != DONE && taken != BROKEN)
				return taken;
			note(chosen);
			chosen = NOTHING;
			if (taken == BROKEN) {
				over();
				return BROKEN;
			}
		}
	}
	return DONE;
}

/* First learn what is in `in`. Then reports: runs, runs cut, steps (two words), the leader, length of the path. */
EXPORT(go_on) void go_on(void)
{
	learn(report[0]);
	u32 *more = tell((u32)search());
	more[0] = runs;
	more[1] = cut;
	copy(more + 2, &steps, 8);
	more[4] = leader;
	more[5] = length;
}
