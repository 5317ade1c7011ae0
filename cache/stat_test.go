package cache

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func statWith(mtime, ctime syscall.Timespec) unix.Stat_t {
	return unix.Stat_t{Mtim: unix.NsecToTimespec(mtime.Nano()), Ctim: unix.NsecToTimespec(ctime.Nano())}
}
