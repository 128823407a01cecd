//go:build !linux

package process

import "syscall"

// attributes leave a program in the group of this process, so that a terminal's
// Ctrl-C ends both; no kernel but Linux ends the one with the other.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
