// Command latchkey is for whoever runs the service: it makes the first organization and its management key, which no
// request can, since every request needs a key.
package main

import (
	"github.com/alecthomas/kong"
)

func main() {
	var commands struct {
		Bootstrap bootstrap `cmd:"" help:"Make the first organization and its management key, once."`
	}
	c := kong.Parse(&commands, kong.Name("latchkey"), kong.Description("Operate a Latchkey key service."), kong.UsageOnError())
	c.FatalIfErrorf(c.Run())
}
