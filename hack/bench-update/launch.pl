# launch.pl CGROUP LIKE TAP FROM COMMAND ...: becomes COMMAND in a cgroup of the node (made if need be) that has the same weight as another
# one, with a tap as descriptor 9: opened here, or, where FROM is a process, the very descriptor that it has. Perl because every Debian has
# it, and a shell has no ioctl.
use strict;
use warnings;
use Fcntl;
use POSIX ();

use constant { TUNSETIFF => 0x400454ca, TAP_WITHOUT_PI => 0x1002, PIDFD_OPEN => 434, PIDFD_GETFD => 438 };

my ($cgroup, $like, $tap, $from, @command) = @ARGV;

sub put {
    my ($file, $text) = @_;
    open(my $out, '>', $file) or die "$file: $!";
    print $out $text;
    close($out) or die "$file: $!";
}

for my $root (-e '/sys/fs/cgroup/cgroup.controllers' ? '/sys/fs/cgroup' : ('/sys/fs/cgroup/memory', '/sys/fs/cgroup/cpu')) {
    mkdir "$root/$cgroup";
    for my $weight ('cpu.shares', 'cpu.weight') {
        open(my $in, '<', "$root/$like/$weight") or next;
        put("$root/$cgroup/$weight", <$in>);
    }
    put("$root/$cgroup/cgroup.procs", $$);
}

sub descriptor_of {
    my ($pid) = @_;
    for my $path (glob "/proc/$pid/fdinfo/*") {
        open(my $info, '<', $path) or next;
        return $path =~ m{(\d+)$} ? $1 : die if grep { /^iff:\s+\Q$tap\E$/ } <$info>;
    }
    die "process $pid has no descriptor of $tap";
}

sub handed_by {
    my ($pid) = @_;
    my $process = syscall(PIDFD_OPEN, $pid + 0, 0);
    my $fd = syscall(PIDFD_GETFD, $process, descriptor_of($pid) + 0, 0);
    die "the descriptor of process $pid: $!" if $fd < 0;
    return $fd;
}

my $tun;

sub opened {
    sysopen($tun, '/dev/net/tun', O_RDWR) or die "/dev/net/tun: $!";
    ioctl($tun, TUNSETIFF, pack('a16 S x22', $tap, TAP_WITHOUT_PI)) or die "$tap: $!";
    return fileno($tun);
}

# A duplicate is not closed at exec, unlike what Perl itself opens.
POSIX::dup2($from =~ /^\d+$/ ? handed_by($from) : opened(), 9) or die "$!";
exec { $command[0] } @command or die "$command[0]: $!";
