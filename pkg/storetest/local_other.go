//go:build !linux

package storetest

import "os/exec"

// dieWithParent does nothing: only Linux can end a process with its parent. Main ends it on every ordinary end.
func dieWithParent(*exec.Cmd) {}
