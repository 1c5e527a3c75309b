/* What both guests of the recorder need: files of the kernel, modules, the second serial line. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "basics.h"

void die(const char *what)
{
	printf("guest: %s: %s\n", what, strerror(errno));
	exit(1);
}

void write_to(const char *path, const char *text)
{
	int file = open(path, O_WRONLY | O_TRUNC);

	if (file < 0 || write(file, text, strlen(text)) < 0)
		printf("guest: %s: %s\n", path, strerror(errno));
	close(file);
}

void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("sched_setaffinity");
}

void load_module(const char *path, const char *arguments)
{
	int file = open(path, O_RDONLY);

	if (syscall(SYS_finit_module, file, arguments, 0))
		die(path);
	close(file);
}

int second_line(void)
{
	int line = open("/dev/ttyS1", O_WRONLY | O_NOCTTY);
	struct termios raw;

	if (line < 0 || tcgetattr(line, &raw))
		die("/dev/ttyS1");
	cfmakeraw(&raw);
	tcsetattr(line, TCSANOW, &raw);
	return line;
}

void to_line(int line, const char *text, size_t length)
{
	while (length) {
		ssize_t done = write(line, text, length);

		if (done <= 0)
			die("second serial line");
		text += done;
		length -= done;
	}
}
