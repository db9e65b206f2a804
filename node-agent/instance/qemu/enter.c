/*
 * enter: turns itself into a guest's QEMU, in the guest's own cgroup, root directory and user.
 *
 * The agent runs it in the node's mount namespace (nsenter -t 1 -m). It never forks: the agent's child IS QEMU in the end,
 * with the same pid. Static and without a shell, so that it works on any node and costs about a millisecond.
 *
 *   enter --cgroup REL | --no-cgroup   where to run, below every hierarchy of --cgroup-root; REL/drover is made
 *         --runtime DIR                its usr/ becomes /usr, read-only
 *         --instance DIR               its vm/ becomes /vm, read-only; its `lock` is held as long as QEMU lives
 *         [--lock NAME]                another file than `lock`: of a QEMU that is to take the guest over from the one that holds that
 *         [--sockets NAME]             vm/NAME, which the user owns, becomes /sockets, writable: where a QEMU that takes over listens
 *         --disk POOL=DIR              becomes /disks/POOL (repeatable)
 *         --uid N --gid N [--kvm]      whom to become; whether /dev/kvm is given
 *         [--userfaultfd]              give /dev/userfaultfd, if the node has it: post-copy at a move's target needs it
 *         --listen FD=NAME             a listening socket vm/NAME, handed over as descriptor FD (repeatable)
 *         --append FD=NAME             a file vm/NAME, opened for appending, as descriptor FD (repeatable)
 *         [--from PID --take-tap FD=TAP]  the very queue of TAP that process PID has open, as descriptor FD (repeatable)
 *         --ready FD                   says `exec` there just before it becomes the command, or what went wrong
 *         -- COMMAND ARG...
 *
 * Sockets and files are opened here, as root, and handed over: the guest's process needs no directory it can write to,
 * and the agent can connect as soon as `exec` was said. Exit code 70: something could not be set up (words on stderr).
 *
 * A tap is taken over as an open file, not opened again: both processes then read one queue, so what arrives while neither runs the
 * guest waits in the kernel, and the switch sees no port go down.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_DISKS = 64, MAX_FDS = 8, FIRST_OWN_FD = 64, EXIT_SETUP = 70 };

struct disk { const char *name, *path; int fd; };
struct handed { int fd; const char *name; int is_socket; };

static int ready = -1;

static void fail(const char *format, ...)
{
	char text[1024];
	int code = errno;
	va_list list;
	va_start(list, format);
	vsnprintf(text, sizeof text, format, list);
	va_end(list);
	size_t n = strlen(text);
	if (code != 0) snprintf(text + n, sizeof text - n, ": %s", strerror(code));
	dprintf(2, "enter: %s\n", text);
	if (ready >= 0) dprintf(ready, "%s\n", text);
	_exit(EXIT_SETUP);
}

/* Names become file names and mount points: one component, and nothing that a shell, a log or /proc/mounts would mangle. */
static int is_name(const char *s)
{
	size_t n = strlen(s);
	if (n == 0 || n > 63 || s[0] == '.' || s[0] == '-') return 0;
	return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == n;
}

static int has_dots(const char *s)
{
	for (const char *p = s; (p = strstr(p, "..")) != NULL; p += 2)
		if ((p == s || p[-1] == '/') && (p[2] == 0 || p[2] == '/')) return 1;
	return 0;
}

static const char *directory(const char *s, const char *what)
{
	errno = 0;
	if (s == NULL || s[0] != '/' || has_dots(s)) fail("%s must be an absolute path without ..", what);
	return s;
}

static long number(const char *s, long least, long most, const char *what)
{
	char *end;
	errno = 0;
	long n = strtol(s, &end, 10);
	errno = 0;
	if (*s == 0 || *end != 0 || n < least || n > most) fail("%s must be a number from %ld to %ld", what, least, most);
	return n;
}

static struct handed handed(char *argument, int is_socket)
{
	char *equals = strchr(argument, '=');
	errno = 0;
	if (equals == NULL || !is_name(equals + 1)) fail("--listen, --append and --take-tap take FD=NAME");
	*equals = 0;
	return (struct handed){ (int)number(argument, 3, FIRST_OWN_FD - 2, "a descriptor"), equals + 1, is_socket };
}

/* Descriptors of our own lie high and close at exec; those below are for the command. */
static int high(int fd, const char *what)
{
	if (fd < 0) fail("cannot open %s", what);
	int moved = fcntl(fd, F_DUPFD_CLOEXEC, FIRST_OWN_FD);
	if (moved < 0) fail("cannot keep %s open", what);
	close(fd);
	return moved;
}

static int open_directory(int at, const char *path)
{
	return high(openat(at, path, O_PATH | O_DIRECTORY | O_NOFOLLOW), path);
}

static const char *via(int fd)
{
	static char path[4][32];
	static int next;
	char *p = path[next++ % 4];
	snprintf(p, sizeof path[0], "/proc/self/fd/%d", fd);
	return p;
}

static int write_text(int at, const char *file, const char *text)
{
	int fd = openat(at, file, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) return -1;
	ssize_t n = write(fd, text, strlen(text));
	int code = errno;
	close(fd);
	errno = code;
	return n < 0 ? -1 : 0;
}

static ssize_t read_text(int at, const char *file, char *text, size_t size)
{
	int fd = openat(at, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0) return -1;
	ssize_t n = read(fd, text, size - 1);
	close(fd);
	if (n >= 0) text[n] = 0;
	return n;
}

/* A new cpuset of cgroup v1 is empty, and nothing can join it before it has what its parent has. */
static void fill_cpuset(int pod, int leaf, const char *file)
{
	char text[4096];
	ssize_t n = read_text(leaf, file, text, sizeof text);
	if (n > 1 || (n == 1 && text[0] != '\n')) return;
	if (read_text(pod, file, text, sizeof text) <= 0 || write_text(leaf, file, text) < 0) fail("cannot set %s", file);
}

/* Joins POD/drover in one hierarchy. 0: the pod is not in this hierarchy. */
static int join(int hierarchy, const char *name, const char *pod_path)
{
	int fd = openat(hierarchy, pod_path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
	if (fd < 0 && errno == ENOENT) return 0;
	int pod = high(fd, pod_path);
	if (mkdirat(pod, "drover", 0755) < 0 && errno != EEXIST) fail("cannot make %s/drover (%s)", pod_path, name);
	int leaf = open_directory(pod, "drover");
	if (strcmp(name, "cpuset") == 0) {
		fill_cpuset(pod, leaf, "cpuset.cpus");
		fill_cpuset(pod, leaf, "cpuset.mems");
	}
	if (write_text(leaf, "cgroup.procs", "0") < 0) fail("cannot join %s/drover (%s)", pod_path, name);
	close(leaf), close(pod);
	return 1;
}

/*
 * Joins the pod in every hierarchy. One that does not have the pod is left for its root: staying where the agent is would
 * end the guest together with the agent's pod.
 */
static void join_all(const char *cgroup_root, const char *pod)
{
	int root = open_directory(AT_FDCWD, cgroup_root);
	if (faccessat(root, "cgroup.controllers", F_OK, 0) == 0) {
		errno = 0;
		if (!join(root, "cgroup v2", pod)) fail("there is no cgroup %s/%s", cgroup_root, pod);
		close(root);
		return;
	}
	int memory = 0;
	int cpuset = openat(root, "cpuset", O_PATH | O_DIRECTORY | O_NOFOLLOW);
	if (cpuset >= 0) join(high(cpuset, "cpuset"), "cpuset", pod);
	int listed = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = listed < 0 ? NULL : fdopendir(listed);
	if (dir == NULL) fail("cannot list %s", cgroup_root);
	for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
		int fd = entry->d_name[0] == '.' ? -1 : openat(root, entry->d_name, O_PATH | O_DIRECTORY | O_NOFOLLOW);
		if (fd < 0) continue; /* `cpu -> cpu,cpuacct` is a link to a hierarchy that is listed too */
		int hierarchy = high(fd, entry->d_name);
		if (faccessat(hierarchy, "cgroup.procs", F_OK, 0) == 0) {
			if (join(hierarchy, entry->d_name, pod)) memory |= strstr(entry->d_name, "memory") != NULL;
			else if (write_text(hierarchy, "cgroup.procs", "0") < 0) fail("cannot leave the agent's cgroup (%s)", entry->d_name);
		}
		close(hierarchy);
	}
	closedir(dir);
	close(root);
	errno = 0;
	if (!memory) fail("there is no cgroup %s/memory/%s", cgroup_root, pod);
}

static void hand_over(int vm, const struct handed *h)
{
	int fd;
	if (h->is_socket) {
		struct sockaddr_un address = { .sun_family = AF_UNIX };
		if (unlinkat(vm, h->name, 0) < 0 && errno != ENOENT) fail("cannot remove vm/%s", h->name);
		snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", via(vm), h->name);
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4) < 0)
			fail("cannot listen on vm/%s", h->name);
	} else {
		fd = openat(vm, h->name, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0640);
		if (fd < 0) fail("cannot open vm/%s", h->name);
	}
	if (fd != h->fd && (dup2(fd, h->fd) < 0 || close(fd) < 0)) fail("cannot hand over vm/%s", h->name);
}

static int is_tap(int fd, const char *name)
{
	struct ifreq request = { 0 };
	return ioctl(fd, TUNGETIFF, &request) == 0 && strncmp(request.ifr_name, name, IFNAMSIZ) == 0;
}

/* Whether the descriptor of the process is a queue of the tap, as the kernel tells of it. */
static int tells_tap(int infos, const char *descriptor, const char *name)
{
	char text[1024], line[64];
	if (read_text(infos, descriptor, text, sizeof text) <= 0) return 0;
	snprintf(line, sizeof line, "\niff:\t%.15s\n", name);
	return strstr(text, line) != NULL;
}

static void take_tap(int from, long pid, const struct handed *h)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%ld/fdinfo", pid);
	int listed = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = listed < 0 ? NULL : fdopendir(listed);
	if (dir == NULL) fail("cannot list %s", path);
	int found = -1, several = 0;
	for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
		if (entry->d_name[0] == '.' || !tells_tap(listed, entry->d_name, h->name)) continue;
		several = found >= 0;
		found = atoi(entry->d_name);
	}
	closedir(dir);
	errno = 0;
	if (found < 0) fail("process %ld does not have tap %s open", pid, h->name);
	if (several) fail("process %ld has more than one queue of tap %s open", pid, h->name);
	int fd = (int)syscall(SYS_pidfd_getfd, from, found, 0);
	if (fd < 0) fail("cannot take tap %s from process %ld", h->name, pid);
	if (!is_tap(fd, h->name)) fail("process %ld has let go of tap %s", pid, h->name);
	/* the copy does not close at exec; where it has its number already, that must be said */
	if (fd == h->fd ? fcntl(fd, F_SETFD, 0) < 0 : dup2(fd, h->fd) < 0 || close(fd) < 0) fail("cannot hand over tap %s", h->name);
}

static void bind_mount(int from, const char *to, unsigned long flags)
{
	if (mount(via(from), to, NULL, MS_BIND, NULL) < 0) fail("cannot mount %s", to);
	if (mount(NULL, to, NULL, MS_REMOUNT | MS_BIND | flags, NULL) < 0) fail("cannot restrict the mount of %s", to);
}

static void device(const char *path, mode_t mode, unsigned major_number, unsigned minor_number, uid_t uid, gid_t gid)
{
	if (mknod(path, S_IFCHR | mode, makedev(major_number, minor_number)) < 0) fail("cannot make /%s", path);
	if (chmod(path, mode) < 0 || chown(path, uid, gid) < 0) fail("cannot own /%s", path);
}

/* A small tmpfs becomes the root, so that removing a runtime's directory on the node cannot unmount what is below it. */
static void new_root(int usr, int vm, int sockets, const struct disk *disks, int n, int kvm, dev_t faults, uid_t uid, gid_t gid)
{
	if (mount("root", via(vm), "tmpfs", MS_NOSUID, "mode=755,size=64k,nr_inodes=256") < 0) fail("cannot mount a root");
	/* the descriptor leads below what was just mounted: walk there again by name */
	char path[4096];
	ssize_t length = readlink(via(vm), path, sizeof path - 1);
	if (length <= 0) fail("cannot find vm");
	path[length] = 0;
	if (chdir(path) < 0) fail("cannot enter the new root");
	static const char *const directories[] = { "usr", "dev", "dev/net", "proc", "vm", "disks" };
	for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
		if (mkdir(directories[i], 0755) < 0) fail("cannot make /%s", directories[i]);
	static const char *const links[] = { "usr/bin", "usr/lib", "usr/lib64" };
	for (size_t i = 0; i < sizeof links / sizeof *links; i++)
		if (symlink(links[i], links[i] + 4) < 0) fail("cannot link /%s", links[i] + 4);
	device("dev/null", 0666, 1, 3, 0, 0);
	device("dev/zero", 0666, 1, 5, 0, 0);
	device("dev/full", 0666, 1, 7, 0, 0);
	device("dev/random", 0666, 1, 8, 0, 0);
	device("dev/urandom", 0666, 1, 9, 0, 0);
	device("dev/net/tun", 0666, 10, 200, 0, 0);
	if (kvm) device("dev/kvm", 0600, 10, 232, uid, gid);
	if (faults != 0) device("dev/userfaultfd", 0600, major(faults), minor(faults), uid, gid);
	bind_mount(usr, "usr", MS_RDONLY | MS_NOSUID | MS_NODEV);
	bind_mount(vm, "vm", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
	if (sockets >= 0) {
		if (mkdir("sockets", 0755) < 0) fail("cannot make /sockets");
		bind_mount(sockets, "sockets", MS_NOSUID | MS_NODEV | MS_NOEXEC);
	}
	/* Kernels before 5.8 know neither word and would apply a number to every /proc there is: those get a plain one. */
	const unsigned long quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	if (mount("proc", "proc", "proc", quiet, "hidepid=invisible,subset=pid") < 0 && mount("proc", "proc", "proc", quiet, NULL) < 0)
		fail("cannot mount /proc");
	for (int i = 0; i < n; i++) {
		char to[128];
		snprintf(to, sizeof to, "disks/%.63s", disks[i].name);
		if (mkdir(to, 0755) < 0) fail("cannot make /%s", to);
		bind_mount(disks[i].fd, to, MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME);
	}
	if (syscall(SYS_pivot_root, ".", ".") < 0) fail("cannot change the root");
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) fail("cannot leave the old root");
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NOEXEC, NULL) < 0) fail("cannot make / read-only");
}

/* Asked for, not required: without CAP_SYS_RESOURCE a hard limit cannot be raised, and only VFIO and VDPA would need it. */
static void limits(void)
{
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY }, none = { 0, 0 };
	struct rlimit files;
	(void)setrlimit(RLIMIT_MEMLOCK, &unlimited);
	if (setrlimit(RLIMIT_CORE, &none) < 0) fail("cannot forbid core files");
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max < 65536 ? files.rlim_max : 65536;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* No way back: own uid, no groups, no capability in any set, none to be had by exec. Checked, not assumed. */
static void drop(uid_t uid, gid_t gid)
{
	for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) fail("cannot drop capability %d", cap);
	if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0) fail("cannot become uid %u", uid);
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct caps[2] = { { 0 } };
	if (syscall(SYS_capset, &header, caps) < 0) fail("cannot drop capabilities");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fail("cannot set no_new_privs");
	if (syscall(SYS_capget, &header, caps) < 0) fail("cannot read capabilities");
	errno = 0;
	for (int i = 0; i < 2; i++)
		if (caps[i].effective || caps[i].permitted || caps[i].inheritable) fail("capabilities are left");
	if (setuid(0) == 0 || getuid() != uid || geteuid() != uid || getgid() != gid) fail("uid %u is not what it should be", uid);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "cgroup", 1, 0, 'c' }, { "no-cgroup", 0, 0, 'n' }, { "cgroup-root", 1, 0, 'C' }, { "runtime", 1, 0, 'r' },
		{ "instance", 1, 0, 'i' }, { "disk", 1, 0, 'd' }, { "uid", 1, 0, 'u' }, { "gid", 1, 0, 'g' }, { "kvm", 0, 0, 'k' },
		{ "listen", 1, 0, 'l' }, { "append", 1, 0, 'a' }, { "ready", 1, 0, 'R' }, { "userfaultfd", 0, 0, 'f' },
		{ "lock", 1, 0, 'L' }, { "sockets", 1, 0, 's' }, { "from", 1, 0, 'F' }, { "take-tap", 1, 0, 't' }, { 0 },
	};
	char *equals;
	const char *cgroup = NULL, *cgroup_root = "/sys/fs/cgroup", *runtime = NULL, *instance = NULL, *lock_name = "lock", *socket_name = NULL;
	struct disk disks[MAX_DISKS];
	struct handed fds[MAX_FDS], taps[MAX_FDS];
	int n_disks = 0, n_fds = 0, n_taps = 0, from = -1, kvm = 0, no_cgroup = 0, ready_fd = -1;
	struct stat faults = { 0 };
	long uid = -1, gid = -1, from_pid = -1;
	for (int o; (o = getopt_long(argc, argv, "+", options, NULL)) != -1;) {
		errno = 0;
		switch (o) {
		case 'c': cgroup = optarg; break;
		case 'n': no_cgroup = 1; break;
		case 'C': cgroup_root = directory(optarg, "--cgroup-root"); break;
		case 'r': runtime = optarg; break;
		case 'i': instance = optarg; break;
		case 'u': uid = number(optarg, 1, 0x7fffffff, "--uid"); break;
		case 'g': gid = number(optarg, 1, 0x7fffffff, "--gid"); break;
		case 'k': kvm = 1; break;
		case 'f': if (stat("/dev/userfaultfd", &faults) < 0 || !S_ISCHR(faults.st_mode)) faults.st_rdev = 0; break;
		case 'R': ready_fd = (int)number(optarg, 3, FIRST_OWN_FD - 1, "--ready"); break;
		case 'L': lock_name = optarg; break;
		case 's': socket_name = optarg; break;
		case 'F': from_pid = number(optarg, 1, 0x7fffffff, "--from"); break;
		case 't':
			if (n_taps == MAX_FDS) fail("too many taps");
			taps[n_taps++] = handed(optarg, 0);
			break;
		case 'l': case 'a':
			if (n_fds == MAX_FDS) fail("too many descriptors");
			fds[n_fds++] = handed(optarg, o == 'l');
			break;
		case 'd':
			equals = strchr(optarg, '=');
			if (equals == NULL || n_disks == MAX_DISKS) fail("--disk takes POOL=DIR, at most %d times", MAX_DISKS);
			*equals = 0;
			if (!is_name(optarg)) fail("--disk: not a pool's name");
			disks[n_disks++] = (struct disk){ optarg, directory(equals + 1, "--disk"), -1 };
			break;
		default: fail("unknown option");
		}
	}
	if (ready_fd >= 0) ready = high(ready_fd, "--ready");
	errno = 0;
	directory(runtime, "--runtime");
	directory(instance, "--instance");
	if (uid < 0 || gid < 0 || optind >= argc) fail("--uid, --gid and a command are required");
	if (!is_name(lock_name)) fail("--lock: not a file's name");
	if (socket_name != NULL && !is_name(socket_name)) fail("--sockets: not a directory's name");
	if (n_taps > 0 && from_pid < 0) fail("--take-tap needs --from");
	if ((cgroup == NULL) != no_cgroup) fail("give one of --cgroup and --no-cgroup");
	if (cgroup != NULL && (cgroup[0] == '/' || cgroup[0] == 0 || has_dots(cgroup))) fail("--cgroup must be relative, without ..");
	/* what the agent had open is none of the guest's business */
	unsigned others = ready >= 0 ? (unsigned)ready + 1 : FIRST_OWN_FD;
	if (syscall(SYS_close_range, 3, FIRST_OWN_FD - 1, 0) < 0 || syscall(SYS_close_range, others, ~0U, 0) < 0)
		fail("cannot close descriptors");
	umask(0077);

	/* One QEMU per instance: the lock is part of the process and goes with it, however it ends. */
	int dir = open_directory(AT_FDCWD, instance);
	int lock = openat(dir, lock_name, O_RDONLY | O_CREAT | O_NOFOLLOW, 0600);
	if (lock < 0) fail("cannot open the instance's lock");
	if (flock(lock, LOCK_EX | LOCK_NB) < 0) fail("the instance has a running QEMU already");
	if (fcntl(lock, F_DUPFD, FIRST_OWN_FD - 1) != FIRST_OWN_FD - 1) fail("cannot keep the instance's lock");
	close(lock);
	close(dir);

	if (cgroup != NULL) join_all(cgroup_root, cgroup);
	/* the agent may be a preferred victim of the kernel when memory runs out; its guests are not */
	(void)write_text(AT_FDCWD, "/proc/self/oom_score_adj", "0");

	/* Slave, not private: the node's mounts and unmounts of pools still arrive until the old root is left. */
	if (unshare(CLONE_NEWNS | CLONE_NEWIPC) < 0) fail("cannot make a mount namespace");
	if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0) fail("cannot detach from the node's mounts");
	int run = open_directory(AT_FDCWD, runtime);
	int usr = open_directory(run, "usr");
	dir = open_directory(AT_FDCWD, instance);
	int vm = open_directory(dir, "vm");
	for (int i = 0; i < n_disks; i++) disks[i].fd = open_directory(AT_FDCWD, disks[i].path);
	int sockets = socket_name == NULL ? -1 : open_directory(vm, socket_name);
	for (int i = 0; i < n_fds; i++) hand_over(vm, &fds[i]);
	if (n_taps > 0) from = high((int)syscall(SYS_pidfd_open, (pid_t)from_pid, 0), "the process of --from");
	for (int i = 0; i < n_taps; i++) take_tap(from, from_pid, &taps[i]);
	umask(0022);
	new_root(usr, vm, sockets, disks, n_disks, kvm, faults.st_rdev, (uid_t)uid, (gid_t)gid);
	umask(0077);
	limits();
	drop((uid_t)uid, (gid_t)gid);

	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	char *environment[] = { "PATH=/usr/bin", "LC_ALL=C", NULL };
	if (ready >= 0 && write(ready, "exec\n", 5) != 5) fail("nobody waits for the start");
	execve(argv[optind], argv + optind, environment);
	fail("cannot run %s", argv[optind]);
}
