/* basics.c: what both guests of the recorder need. */
#include <stddef.h>

#define PAGE 4096UL
#define TRACING "/sys/kernel/tracing/"

/* In every loop that spins: it lets QEMU go on with the next CPU at once. */
static inline void relax(void)
{
	__asm__ volatile("pause");
}

void die(const char *what);
void write_to(const char *path, const char *text);
void pin(int cpu);
void load_module(const char *path, const char *arguments);
int second_line(void);
void to_line(int line, const char *text, size_t length);
