package webhook

import (
	"errors"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// MaxAddress is the longest address, in bytes.
const MaxAddress = 2048

// target is an address that was taken apart.
type target struct {
	url     *url.URL
	name    string     // as DNS is asked for it, "" where the host is an address
	literal netip.Addr // the host where it is an address
	port    string
}

// Check says what is wrong with an address, in words that fit after its field's name ("must be an https URL"). It asks no DNS: a name
// that it lets pass may still be refused when something is sent there.
func (s *Sender) Check(address string) error {
	_, err := s.parse(address)
	return err
}

// parse takes one spelling for each thing, since what is read in two ways may be checked in the one and used in the other.
func (s *Sender) parse(address string) (target, error) {
	if len(address) > MaxAddress {
		return target{}, errors.New("must have at most 2048 bytes")
	}
	if strings.ContainsFunc(address, func(c rune) bool { return c <= ' ' || c > '~' || c == '\\' }) {
		return target{}, errors.New("must be of visible ASCII characters without backslashes, with an international name in its form xn--")
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return target{}, errors.New("must be an https URL with a host")
	case u.User != nil || strings.Contains(address, "#"):
		return target{}, errors.New("must have no user information and no fragment")
	}
	t := target{url: u, port: u.Port()}
	if err := t.readHost(); err != nil {
		return target{}, err
	}
	if u.Scheme != "https" && !(u.Scheme == "http" && s.Loopback && t.isHere()) {
		return target{}, errors.New("must be an https URL")
	}
	if t.literal.IsValid() && !s.allows(t.literal) || isLocalhost(t.name) && !s.Loopback {
		return target{}, errors.New("must not be a private or reserved address")
	}
	return t, t.readPort()
}

func (t *target) readHost() error {
	host := t.url.Hostname()
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() == strings.HasPrefix(t.url.Host, "[") {
		t.literal = a
		return nil
	}
	t.name = strings.TrimSuffix(strings.ToLower(host), ".")
	if !validName(t.name) {
		return errors.New("must have as its host a full name, four decimal numbers or an IPv6 address in brackets")
	}
	return nil
}

// readPort fills in the scheme's port where there is none.
func (t *target) readPort() error {
	if n, err := strconv.ParseUint(t.port, 10, 16); err == nil && n > 0 && strconv.FormatUint(n, 10) == t.port {
		return nil
	}
	if t.port != "" || strings.HasSuffix(t.url.Host, ":") {
		return errors.New("must have a port from 1 to 65535 or none")
	}
	t.port = "443"
	if t.url.Scheme == "http" {
		t.port = "80"
	}
	return nil
}

// validName says whether a host is a whole DNS name. Its last label begins with a letter, as all public ones do: what
// begins with a digit there is some spelling of an IPv4 address (127.1, 0x7f000001, 017700000001), which the system's
// resolver might understand. A name without a dot is one of the local network.
func validName(name string) bool {
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	for _, label := range labels {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, inNoLabel) {
			return false
		}
	}
	return len(name) <= 253 && 'a' <= last[0] && last[0] <= 'z' && (len(labels) > 1 || isLocalhost(name))
}

func inNoLabel(c rune) bool {
	return !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_')
}

// isLocalhost says whether a name is this machine, whatever DNS would say (RFC 6761, section 6.3).
func isLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// isHere says whether the host as it is written is this machine: resolve asks nobody where localhost is.
func (t target) isHere() bool { return isLocalhost(t.name) || isLoopback(t.literal) }

// allows says whether an address may be reached: a public one, and in development one of this machine.
func (s *Sender) allows(a netip.Addr) bool { return isPublic(a) || s.Loopback && isLoopback(a) }

func isLoopback(a netip.Addr) bool { return !a.Is4In6() && a.IsLoopback() }

// isPublic says whether an address is one host of the public internet. Of IPv6 only what is given out at all (2000::/3) may
// be: so an IPv4 address inside an IPv6 one (mapped, compatible, translated, NAT64), unique local, link-local and site-local
// ones, multicast, loopback and whatever is yet to be invented stay out; and so does an address with a zone, which is in no
// prefix.
func isPublic(a netip.Addr) bool {
	if !a.IsValid() || a.Is6() && !given.Contains(a) {
		return false
	}
	for _, p := range special {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

var given = netip.MustParsePrefix("2000::/3")

// special is what the special-purpose registries of IANA (RFC 6890) take out of IPv4 and out of 2000::/3.
var special = prefixes(
	"0.0.0.0/8",        // this network
	"10.0.0.0/8",       // private
	"100.64.0.0/10",    // carriers' NAT
	"127.0.0.0/8",      // loopback
	"168.63.129.16/32", // Azure's agent of each virtual machine
	"169.254.0.0/16",   // link-local, with the metadata services of clouds
	"172.16.0.0/12",    // private
	"192.0.0.0/24",     // protocol assignments
	"192.0.2.0/24",     // documentation
	"192.88.99.0/24",   // 6to4 relays
	"192.168.0.0/16",   // private
	"198.18.0.0/15",    // benchmarks
	"198.51.100.0/24",  // documentation
	"203.0.113.0/24",   // documentation
	"224.0.0.0/4",      // multicast
	"240.0.0.0/4",      // reserved, and broadcast
	"2001::/23",        // protocol assignments: Teredo, benchmarks, ORCHID
	"2001:db8::/32",    // documentation
	"2002::/16",        // 6to4, with any IPv4 address inside
	"3fff::/20",        // documentation
)

func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		all[i] = netip.MustParsePrefix(text)
	}
	return all
}
