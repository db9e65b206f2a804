/*
 * view: gives the QEMU of a guest that runs another directory below its /disks, or takes one away.
 *
 * The agent runs it in the node's mount namespace (nsenter -t 1 -m). A guest's QEMU sees a root of its own (enter.c), to which the
 * node's mounts do not lead: the directory is picked up here, and put down there.
 *
 *   view --pid PID --uid N --add POOL=DIR     DIR becomes /disks/POOL, as enter's --disk does it; one that is there already stays
 *   view --pid PID --uid N --remove POOL      /disks/POOL is taken away; what is open there stays open
 *
 * PID must be a process of the guest's own user N: another process that has this pid by now is not touched. Each may be repeated.
 * Needs Linux 5.2. Exit code 70: words on stderr.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#endif
enum { CLONE_TREE = 1, FROM_EMPTY_PATH = 4, EXIT_SETUP = 70 };

/* As enter.c leaves them. */
static const unsigned long ROOT_FLAGS = MS_NOSUID | MS_NOEXEC;
static const unsigned long DISK_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME;

static void fail(const char *format, ...)
{
	char text[512];
	int code = errno;
	va_list list;
	va_start(list, format);
	vsnprintf(text, sizeof text, format, list);
	va_end(list);
	fprintf(stderr, "view: %s%s%s\n", text, code ? ": " : "", code ? strerror(code) : "");
	_exit(EXIT_SETUP);
}

static int is_name(const char *s)
{
	size_t n = strlen(s);
	if (n == 0 || n > 63 || s[0] == '.' || s[0] == '-') return 0;
	return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

static long number(const char *s, const char *what)
{
	char *end;
	long n = strtol(s, &end, 10);
	errno = 0;
	if (*s == 0 || *end != 0 || n < 1 || n > 0x7fffffff) fail("%s must be a number", what);
	return n;
}

/* The mount namespace of this very process, which must be the guest's. */
static int namespace_of(long pid, uid_t uid)
{
	char path[32];
	struct stat seen;
	snprintf(path, sizeof path, "/proc/%ld", pid);
	int process = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (process < 0 || fstat(process, &seen) < 0) fail("there is no process %ld", pid);
	errno = 0;
	if (seen.st_uid != uid) fail("process %ld is not the guest's", pid);
	int ns = openat(process, "ns/mnt", O_RDONLY | O_CLOEXEC);
	if (ns < 0) fail("process %ld has ended", pid);
	close(process);
	return ns;
}

static void enter(int ns)
{
	struct stat disks;
	if (setns(ns, CLONE_NEWNS) < 0 || chdir("/") < 0) fail("cannot enter the guest's root");
	if (lstat("/disks", &disks) < 0 || !S_ISDIR(disks.st_mode)) fail("the guest's root has no /disks");
}

static void make_directory(const char *path)
{
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | ROOT_FLAGS, NULL) < 0) fail("cannot change the guest's root");
	int made = mkdir(path, 0755), code = errno;
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | ROOT_FLAGS, NULL) < 0) fail("cannot close the guest's root");
	errno = code;
	if (made < 0 && errno != EEXIST) fail("cannot make %s", path);
}

static void add(int ns, const char *to, const char *from)
{
	struct stat want, have;
	int directory = open(from, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (directory < 0 || fstat(directory, &want) < 0) fail("cannot open %s", from);
	int tree = (int)syscall(SYS_open_tree, directory, "", CLONE_TREE | AT_EMPTY_PATH | O_CLOEXEC);
	if (tree < 0) fail("cannot pick up %s (it takes Linux 5.2)", from);
	enter(ns);
	if (lstat(to, &have) < 0) make_directory(to);
	else if (have.st_dev == want.st_dev && have.st_ino == want.st_ino) return;
	else if (umount2(to, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL) fail("cannot replace %s", to);
	if (syscall(SYS_move_mount, tree, "", AT_FDCWD, to, FROM_EMPTY_PATH) < 0) fail("cannot mount %s", to);
	if (mount(NULL, to, NULL, MS_PRIVATE, NULL) < 0) fail("cannot detach %s", to);
	if (mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | DISK_FLAGS, NULL) < 0) fail("cannot restrict the mount of %s", to);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "pid", 1, 0, 'p' }, { "uid", 1, 0, 'u' }, { "add", 1, 0, 'a' }, { "remove", 1, 0, 'r' }, { 0 },
	};
	long pid = 0, uid = 0;
	char *pool = NULL, *from = NULL, to[128];
	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		errno = 0;
		switch (o) {
		case 'p': pid = number(optarg, "--pid"); break;
		case 'u': uid = number(optarg, "--uid"); break;
		case 'r': pool = optarg; from = NULL; break;
		case 'a':
			pool = optarg;
			from = strchr(pool, '=');
			if (from == NULL || from[1] != '/') fail("--add takes POOL=DIR");
			*from++ = 0;
			break;
		default: fail("unknown option");
		}
	}
	errno = 0;
	if (pid == 0 || uid == 0 || pool == NULL || !is_name(pool)) fail("--pid, --uid and one of --add and --remove are required");
	snprintf(to, sizeof to, "/disks/%.63s", pool);
	umask(0022);
	int ns = namespace_of(pid, (uid_t)uid);
	if (from != NULL) add(ns, to, from);
	else {
		enter(ns);
		if (umount2(to, MNT_DETACH | UMOUNT_NOFOLLOW) < 0 && errno != EINVAL && errno != ENOENT) fail("cannot take %s away", to);
	}
	return 0;
}
