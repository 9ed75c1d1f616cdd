package main

import (
	"os"
	"syscall"
)

// openFiles is how many descriptors this process may have. Go has raised the soft
// limit to the hard one already. If more are needed the hard one is raised as well,
// which root may do, or who has CAP_SYS_RESOURCE; fs.nr_open bounds that.
func openFiles(needed uint64) uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	more := min(needed, numberIn(os.DirFS("/"), "proc/sys/fs/nr_open"))
	if limit.Cur >= more {
		return limit.Cur
	}
	raised := syscall.Rlimit{Cur: more, Max: max(more, limit.Max)}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised); err != nil {
		return limit.Cur // what may not be raised is told, with the cure
	}
	return raised.Cur
}
