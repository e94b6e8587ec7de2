package webhook

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// spellings is addresses that no notice may reach, with :1 where the port of a listener on this machine goes.
var spellings = []string{
	// This machine.
	"https://127.0.0.1:1/", "https://127.0.0.1:1", "https://127.0.0.2:1/", "https://127.255.255.254:1/", "https://127.1:1/", "https://127.0.1:1/", "https://127.000.000.001:1/", "https://0127.0.0.1:1/",
	"https://2130706433:1/", "https://017700000001:1/", "https://0x7f000001:1/", "https://0x7f.0.0.1:1/", "https://0x7F.1:1/", "https://0177.0.0.01:1/", "https://0x7f.0x0.0x0.0x1:1/", "https://127.0.0.0x1:1/",
	"https://4294967297.1:1/", "https://18446744071545290753:1/", "https://127.0.0.1.:1/", "https://127.0.0.1..:1/", "https://.127.0.0.1:1/", "https://127..1:1/", "https://0.0.0.0:1/", "https://0:1/", "https://0.1:1/", "https://0x0:1/",
	"https://[::1]:1/", "https://[0:0:0:0:0:0:0:1]:1/", "https://[0000::0001]:1/", "https://[::]:1/", "https://[::1%25lo]:1/", "https://[::1%lo]:1/", "https://::1:1/", "https://[::1.]:1/", "https://[127.0.0.1]:1/",
	"https://localhost:1/", "https://LOCALHOST:1/", "https://LocalHost:1/", "https://localhost.:1/", "https://localhost..:1/", "https://a.localhost:1/", "https://evil.example.localhost.:1/", "https://localhost.localdomain:1/", "https://ip6-localhost:1/",

	// IPv4 inside IPv6.
	"https://[::ffff:127.0.0.1]:1/", "https://[::ffff:7f00:1]:1/", "https://[0:0:0:0:0:ffff:127.0.0.1]:1/", "https://[::127.0.0.1]:1/", "https://[::7f00:1]:1/", "https://[::ffff:0:127.0.0.1]:1/",
	"https://[::ffff:8.8.8.8]:1/", "https://[2002:7f00:1::]:1/", "https://[2002:a9fe:a9fe::1]:1/", "https://[2002:808:808::1]:1/", "https://[64:ff9b::127.0.0.1]:1/", "https://[64:ff9b::a9fe:a9fe]:1/", "https://[64:ff9b:1::7f00:1]:1/",
	"https://[2001::1]:1/", "https://[2001:0:4136:e378:8000:63bf:80ff:fffe]:1/", "https://[::ffff:a9fe:a9fe]:1/",

	// Metadata services, private and reserved networks.
	"https://169.254.169.254:1/latest/meta-data/", "https://169.254.170.2:1/v2/credentials", "https://2852039166:1/", "https://0xa9fea9fe:1/", "https://0251.0376.0251.0376:1/", "https://169.254.43518:1/", "https://[fd00:ec2::254]:1/", "https://[fd00:ec2::23]:1/",
	"https://[fe80::a9fe:a9fe]:1/", "https://[fe80::1%25eth0]:1/", "https://100.100.100.200:1/", "https://168.63.129.16:1/", "https://192.0.0.192:1/", "https://metadata:1/", "https://metadata.google.internal:1/",
	"https://10.0.0.1:1/", "https://10.255.255.255:1/", "https://172.16.0.1:1/", "https://172.31.255.255:1/", "https://192.168.0.1:1/", "https://100.64.0.1:1/", "https://100.127.255.255:1/", "https://192.0.2.1:1/", "https://198.51.100.1:1/",
	"https://203.0.113.1:1/", "https://198.18.0.1:1/", "https://198.19.255.255:1/", "https://192.88.99.1:1/", "https://224.0.0.1:1/", "https://239.255.255.255:1/", "https://240.0.0.1:1/", "https://255.255.255.255:1/", "https://0.255.255.255:1/",
	"https://[fc00::1]:1/", "https://[fdff:ffff::1]:1/", "https://[fec0::1]:1/", "https://[febf::1]:1/", "https://[ff02::1]:1/", "https://[ff0e::1]:1/", "https://[100::1]:1/", "https://[2001:db8::1]:1/", "https://[2001:2::1]:1/", "https://[2001:10::1]:1/",
	"https://[2001:20::1]:1/", "https://[3fff::1]:1/", "https://[4000::1]:1/", "https://[5f00::1]:1/", "https://[1::]:1/", "https://[::2]:1/",

	// Names of this machine's network, and names that lead to this machine: the resolver of the test answers all with 127.0.0.1.
	"https://intranet:1/", "https://com:1/", "https://evil.example:1/", "https://EVIL.example.:1/", "https://127.0.0.1.nip.example:1/", "https://xn--bcher-kva.example:1/", "https://a_b.example:1/",

	// What one reader takes for the host and another does not.
	"https://8.8.8.8@127.0.0.1:1/", "https://8.8.8.8:443@127.0.0.1:1/", "https://user:pass@evil.example:1/", "https://@127.0.0.1:1/", "https://:@evil.example:1/", "https://8.8.8.8%40127.0.0.1:1/", "https://8.8.8.8\\@127.0.0.1:1/", "https://127.0.0.1:1\\@8.8.8.8/",
	"https://8.8.8.8#@127.0.0.1:1/", "https://127.0.0.1:1#@8.8.8.8/", "https://8.8.8.8/#", "https://127.0.0.1:1?@8.8.8.8/", "https:///127.0.0.1:1/", "https:127.0.0.1:1/", "https:/127.0.0.1:1/", "https:\\\\127.0.0.1:1/", "//127.0.0.1:1/", "127.0.0.1:1",
	"https://127%2e0%2e0%2e1:1/", "https://%31%32%37.0.0.1:1/", "https://127。0。0。1:1/", "https://①②⑦.⓪.⓪.①:1/", "https://１２７.0.0.1:1/", "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:1/", "https://ｅvil.example:1/", "https://evil。example:1/", "https://bücher.example:1/", "https://e\u00advil.example:1/",
	"https://127.0.0.1:1\t/", "https://127.0.0.1\r\n:1/", " https://127.0.0.1:1/", "https://127.0.0.1:1/ ", "https://127.0.0.1 :1/", "https://127.0.0.1\x00:1/", "https://evil.example\x00.example:1/", "https://*:1/", "https://-evil.example:1/", "https://evil..example:1/", "https://8.8.8.8/a b", "https://8.8.8.8/\\x", "https://8.8.8.8/?\x7f",

	// Ports.
	"https://8.8.8.8:/", "https://8.8.8.8:0/", "https://8.8.8.8:65536/", "https://8.8.8.8:65979/", "https://8.8.8.8:0443/", "https://8.8.8.8:+443/", "https://8.8.8.8:-1/", "https://8.8.8.8:443:1/", "https://8.8.8.8:https/", "https://:1/", "https://:443/",

	// Not https.
	"http://127.0.0.1:1/", "http://localhost:1/", "http://8.8.8.8:1/", "http://example.com/", "HTTP://8.8.8.8:1/", "ftp://127.0.0.1:1/", "file:///etc/passwd", "gopher://127.0.0.1:1/", "unix:///var/run/docker.sock", "ws://127.0.0.1:1/", "javascript:alert(1)", "data:,x", "", "https://", "https:", "/", "x",
}

// witness counts the connections to a port of this machine's addresses, and notes what a sender was about to reach. Nothing that a test
// does leaves this machine, whatever the sender would let through.
type witness struct {
	port    string
	accepts atomic.Int64
	mu      sync.Mutex
	reached []string
}

var errNotHere = errors.New("the tests connect to nothing beyond this machine")

func newWitness(t *testing.T) *witness {
	t.Helper()
	w := &witness{}
	address := listen(t, func(net.Conn) { w.accepts.Add(1) })
	_, w.port, _ = net.SplitHostPort(strings.TrimPrefix(address, "https://"))
	if six, err := net.Listen("tcp6", "[::1]:"+w.port); err == nil {
		t.Cleanup(func() { _ = six.Close() })
		go func() {
			for conn, err := six.Accept(); err == nil; conn, err = six.Accept() {
				w.accepts.Add(1)
				_ = conn.Close()
			}
		}()
	}
	return w
}

func (w *witness) note(a netip.AddrPort) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reached = append(w.reached, a.Addr().String())
	if a.Addr().IsLoopback() {
		return nil
	}
	return errNotHere
}

func (w *witness) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.reached
	w.reached = nil
	return all
}

func (w *witness) address(text string) string {
	for _, end := range []string{"/", "\\", "#", "?", "\t", "\r"} {
		text = strings.Replace(text, ":1"+end, ":"+w.port+end, 1)
	}
	if before, ok := strings.CutSuffix(text, ":1"); ok {
		text = before + ":" + w.port
	}
	return text
}

func TestNoSpellingReachesWhatIsNotPublic(t *testing.T) {
	w := newWitness(t)
	sender := &Sender{Resolver: at("127.0.0.1", "::1", "10.0.0.1"), reached: w.note}
	if len(spellings) < 60 {
		t.Fatalf("the table has %d rows", len(spellings))
	}
	for _, text := range spellings {
		address := w.address(text)
		r := sender.Send(t.Context(), address, notice, NewSecret())
		if r.Outcome != Refused || r.Landed || r.Status != 0 || !strings.HasPrefix(r.Err, "refused: ") {
			t.Errorf("%q: %+v", address, r)
		}
		if got := w.took(); len(got) > 0 {
			t.Errorf("%q reached %v", address, got)
		}
	}
	if n := w.accepts.Load(); n > 0 {
		t.Errorf("%d connections were made", n)
	}
}

// The table above would pass if nothing were reached at all.
func TestPublicAddressesAreReached(t *testing.T) {
	w := newWitness(t)
	sender := &Sender{Resolver: at("8.8.8.8"), reached: w.note}
	for address, want := range map[string]string{
		"https://8.8.8.8/": "8.8.8.8", "https://8.8.8.8:8443/x?y=z": "8.8.8.8", "HTTPS://1.1.1.1": "1.1.1.1", "https://[2606:4700::1111]:65535/": "2606:4700::1111", "https://[2a00:1450:4001:0000::200E]/": "2a00:1450:4001::200e",
		"https://example.com": "8.8.8.8", "https://EXAMPLE.com.:1/": "8.8.8.8", "https://xn--bcher-kva.example/": "8.8.8.8", "https://127.0.0.1.example.com/": "8.8.8.8", "https://localhost.example.com/": "8.8.8.8",
		"https://11.0.0.1/": "11.0.0.1", "https://172.32.0.1/": "172.32.0.1", "https://100.128.0.1/": "100.128.0.1", "https://198.20.0.1/": "198.20.0.1", "https://223.255.255.255/": "223.255.255.255", "https://[2001:200::1]/": "2001:200::1",
		"https://example.com/a@b:c%20d%2F?u=http://127.0.0.1/": "8.8.8.8", "https://0x7f.example.com/": "8.8.8.8",
	} {
		r := sender.Send(t.Context(), address, notice, NewSecret())
		if got := w.took(); !slices.Equal(got, []string{want}) || r.Outcome != Retry || r.Landed {
			t.Errorf("%q reached %v: %+v", address, got, r)
		}
		if err := sender.Check(address); err != nil {
			t.Errorf("%q %v", address, err)
		}
	}
}

// resolved is what a name leads to, and which of it may be reached.
func TestWhatANameLeadsToIsCheckedAddressByAddress(t *testing.T) {
	w := newWitness(t)
	for _, row := range []struct{ found, reached string }{
		{"127.0.0.1", ""}, {"::1", ""}, {"0.0.0.0", ""}, {"::", ""}, {"169.254.169.254", ""}, {"fd00:ec2::254", ""}, {"10.0.0.1 192.168.1.1 172.16.0.1", ""},
		{"::ffff:127.0.0.1", ""}, {"::ffff:169.254.169.254", ""}, {"::127.0.0.1", ""}, {"64:ff9b::7f00:1", ""}, {"2002:7f00:1::", ""}, {"fe80::1%lo", ""}, {"2606:4700::1%lo", ""}, {"255.255.255.255", ""}, {"224.0.0.1", ""},
		{"127.0.0.1 8.8.8.8", "8.8.8.8"}, {"8.8.8.8 127.0.0.1", "8.8.8.8"}, {"::1 10.0.0.1 8.8.8.8 169.254.169.254 1.1.1.1", "8.8.8.8 1.1.1.1"}, {"::ffff:8.8.8.8", "8.8.8.8"},
		{"1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4 1.1.1.5 1.1.1.6", "1.1.1.1 1.1.1.2 1.1.1.3 1.1.1.4"},
	} {
		sender := &Sender{Resolver: at(strings.Fields(row.found)...), reached: w.note}
		r := sender.Send(t.Context(), "https://evil.example:"+w.port, notice, NewSecret())
		want := map[bool]Outcome{true: Refused, false: Retry}[row.reached == ""]
		if got := strings.Join(w.took(), " "); got != row.reached || r.Outcome != want {
			t.Errorf("%s: reached %q, not %q: %+v", row.found, got, row.reached, r)
		}
	}
	if n := w.accepts.Load(); n > 0 {
		t.Errorf("%d connections were made", n)
	}
}

// A name that changes its mind is asked once for each attempt, and what it said then is what is checked at connecting.
func TestADNSAnswerThatChangesReachesNothing(t *testing.T) {
	w := newWitness(t)
	changing := &names{answers: [][]netip.Addr{at("8.8.8.8").answers[0], at("127.0.0.1").answers[0], at("8.8.8.8").answers[0], at("::1").answers[0]}}
	sender := &Sender{Resolver: changing, reached: w.note}
	for i, want := range []struct {
		reached string
		Outcome
	}{{"8.8.8.8", Retry}, {"", Refused}, {"8.8.8.8", Retry}, {"", Refused}, {"", Refused}} {
		if err := sender.Check("https://evil.example:" + w.port); err != nil {
			t.Fatal(err)
		}
		r := sender.Send(t.Context(), "https://evil.example:"+w.port, notice, NewSecret())
		if got := strings.Join(w.took(), " "); got != want.reached || r.Outcome != want.Outcome {
			t.Errorf("attempt %d reached %q: %+v", i+1, got, r)
		}
		if len(changing.asked) != i+1 {
			t.Errorf("after %d attempts DNS was asked %d times", i+1, len(changing.asked))
		}
	}
	if n := w.accepts.Load(); n > 0 {
		t.Errorf("%d connections were made", n)
	}
}

// The network's own search list would find intranet.corp.example for intranet.
func TestDNSIsAskedForWholeNames(t *testing.T) {
	w := newWitness(t)
	for _, host := range []string{"hooks.example.com", "hooks.example.com.", "HOOKS.Example.COM"} {
		resolver := at("8.8.8.8")
		(&Sender{Resolver: resolver, reached: w.note}).Send(t.Context(), "https://"+host+"/", notice, NewSecret())
		if !slices.Equal(resolver.asked, []string{"hooks.example.com."}) {
			t.Errorf("%s: asked for %q", host, resolver.asked)
		}
	}
}

// A system's resolver may read a number as an IPv4 address, and may be told another thing of localhost.
func TestDNSIsNotAskedForNumbersNorForThisMachine(t *testing.T) {
	resolver := at("8.8.8.8")
	sender := &Sender{Loopback: true, Resolver: resolver, reached: func(a netip.AddrPort) error {
		if !a.Addr().IsLoopback() {
			t.Errorf("%v was reached", a)
		}
		return errNotHere
	}}
	for _, host := range []string{"127.1", "2130706433", "0x7f000001", "0X7F.1", "017700000001", "127.0.0.1.", "1.2.3", "1.2.3.4.5", "256.256.256.256", "08.8.8.8", "evil.example.0x7f", "evil.example.1", "evil.1a", "localhost", "LOCALHOST.", "x.localhost"} {
		sender.Send(t.Context(), "https://"+host+"/", notice, NewSecret())
	}
	if len(resolver.asked) > 0 {
		t.Errorf("DNS was asked for %q", resolver.asked)
	}
}

// The first and last address of every network that is not public, and their neighbours.
func TestTheEdgesOfReservedNetworksAreRight(t *testing.T) {
	for _, p := range special {
		first, last := p.Masked().Addr(), lastOf(p)
		for _, a := range []netip.Addr{first, last} {
			if isPublic(a) || isPublic(netip.AddrFrom16(a.As16())) && a.Is4() {
				t.Errorf("%v of %v is public", a, p)
			}
		}
	}
	for _, text := range []string{"1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "126.255.255.255", "128.0.0.0", "169.253.255.255", "169.255.0.0", "172.15.255.255", "192.0.1.0", "192.167.255.255", "192.169.0.0",
		"198.17.255.255", "223.255.255.255", "2000::", "2001:200::", "2001:db7:ffff::", "2001:db9::", "2003::", "3ffe:ffff::", "3fff:1000::"} {
		if !isPublic(netip.MustParseAddr(text)) {
			t.Errorf("%s is not public", text)
		}
	}
	if isPublic(netip.Addr{}) {
		t.Error("no address is public")
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Whatever is accepted leads to the host that another reader of addresses sees, and to nothing reserved.
func FuzzCheck(f *testing.F) {
	for _, text := range spellings {
		f.Add(text)
	}
	f.Add("https://example.com:8443/x?y=z")
	f.Fuzz(func(t *testing.T, address string) {
		var s Sender
		target, err := s.parse(address)
		if err != nil {
			return
		}
		if target.literal.IsValid() == (target.name != "") || target.literal.IsValid() && !isPublic(target.literal) {
			t.Errorf("%q: %+v", address, target)
		}
		authority, _, _ := strings.Cut(address[len("https://"):], "/")
		authority, _, _ = strings.Cut(authority, "?")
		host, port, err := net.SplitHostPort(authority)
		if err != nil {
			host, port = strings.Trim(authority, "[]"), "443"
		}
		if port != target.port || target.name != "" && !strings.EqualFold(strings.TrimSuffix(host, "."), target.name) || target.name == "" && netip.MustParseAddr(host) != target.literal {
			t.Errorf("%q leads to %+v", address, target)
		}
	})
}

func TestInDevelopmentThisMachineMayReceiveAndNothingElseIsWeakened(t *testing.T) {
	w := newWitness(t)
	sender := &Sender{Loopback: true, Resolver: at("127.0.0.1", "10.0.0.1"), reached: w.note}
	for _, text := range []string{"http://127.0.0.1:1/", "http://[::1]:1/", "http://localhost:1/", "http://LOCALHOST.:1/", "http://a.localhost:1/", "https://localhost:1/", "https://127.0.0.1:1/", "https://named.example:1/"} {
		sender.Send(t.Context(), w.address(text), notice, NewSecret())
		if got := w.took(); len(got) == 0 || !netip.MustParseAddr(got[0]).IsLoopback() {
			t.Errorf("%q reached %v", text, got)
		}
	}
	for _, text := range []string{
		"http://named.example:1/", "http://8.8.8.8:1/", "http://10.0.0.1:1/", "https://10.0.0.1:1/", "https://0.0.0.0:1/", "https://[::]:1/", "https://[::ffff:127.0.0.1]:1/", "http://127.1:1/", "http://2130706433:1/", "https://169.254.169.254/", "https://intranet:1/",
		"http://user@127.0.0.1:1/", "ftp://127.0.0.1:1/", "http://localhost.evil.example:1/",
	} {
		r := sender.Send(t.Context(), w.address(text), notice, NewSecret())
		if got := w.took(); len(got) > 0 || r.Outcome != Refused {
			t.Errorf("%q reached %v: %+v", text, got, r)
		}
	}
}

func TestAnAddressIsRefusedInWordsThatFitItsField(t *testing.T) {
	for address, want := range map[string]string{
		"http://example.com/":                              "must be an https URL",
		"https://169.254.169.254/":                         "must not be a private or reserved address",
		"https://localhost/":                               "must not be a private or reserved address",
		"https://named.example/":                           "",
		"https://2130706433/":                              "must have as its host a full name, four decimal numbers or an IPv6 address in brackets",
		"https://u@example.com/":                           "must have no user information and no fragment",
		"https://example.com:0/":                           "must have a port from 1 to 65535 or none",
		"https://bücher.example/":                          "must be of visible ASCII characters without backslashes, with an international name in its form xn--",
		"https://example.com/" + strings.Repeat("x", 2048): "must have at most 2048 bytes",
		"example.com":                                      "must be an https URL with a host",
	} {
		got := ""
		if err := new(Sender).Check(address); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%.40s %q, not %q", address, got, want)
		}
	}
}
