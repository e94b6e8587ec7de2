module example.com/receiver

go 1.26

require github.com/latchkey/latchkey v0.0.0

replace github.com/latchkey/latchkey => ../..
