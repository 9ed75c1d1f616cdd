//go:build !linux

package main

import "syscall"

// openFiles is how many descriptors this process may have. Go has raised the soft
// limit as far as the system lets it.
func openFiles(uint64) uint64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0
	}
	return uint64(limit.Cur)
}
