package storetest

import (
	"os/exec"
	"syscall"
)

// dieWithParent has a process ended when ours is, even by SIGKILL.
func dieWithParent(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
