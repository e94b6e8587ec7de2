// Command latchkey is for whoever runs the service: it makes the first organization and its management key, which no
// request can, since every request needs a key; and it exports audit trails and proves them.
package main

import (
	"github.com/alecthomas/kong"
)

func main() {
	var commands struct {
		Bootstrap bootstrap `cmd:"" help:"Make the first organization and its management key, once."`
		Audit     trail     `cmd:"" help:"Export an audit trail, and prove that nobody changed it."`
	}
	c := kong.Parse(&commands, kong.Name("latchkey"), kong.Description("Operate a Latchkey key service."), kong.UsageOnError())
	c.FatalIfErrorf(c.Run())
}
