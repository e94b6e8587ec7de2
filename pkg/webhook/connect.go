package webhook

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	patience = 5 * time.Second // for connecting to one of several addresses
	maxTries = 4               // addresses of one name that are tried
)

var (
	errTimeout    = errors.New("timed out")
	errNotAllowed = errors.New("its name leads to private or reserved addresses alone")
)

// connect makes the one connection of an attempt, with TLS unless the target is plain http. It is cut when ctx ends: below
// TLS, whose own end may wait for the other side, and whatever net/http does, which stops watching the context of an answer
// 101. The error is errNotAllowed when no address of the target may be reached; nothing was sent then.
func (s *Sender) connect(ctx context.Context, t target) (net.Conn, error) {
	addresses, err := s.resolve(ctx, t)
	if err != nil {
		return nil, err
	}
	conn, err := s.dialOne(ctx, t, addresses)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	if t.url.Scheme == "http" {
		return conn, nil
	}
	return s.handshake(ctx, conn, t)
}

// resolve finds the addresses of a target. It asks for a whole name, so that the search list of this machine's network
// takes no part.
func (s *Sender) resolve(ctx context.Context, t target) ([]netip.Addr, error) {
	if t.literal.IsValid() {
		return []netip.Addr{t.literal}, nil
	}
	if isLocalhost(t.name) {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	var resolver Resolver = net.DefaultResolver
	if s.Resolver != nil {
		resolver = s.Resolver
	}
	addresses, err := resolver.LookupNetIP(ctx, "ip", t.name+".")
	if err != nil || len(addresses) == 0 {
		return nil, why(ctx, "its name was not resolved", unresolved(err))
	}
	return addresses, nil
}

func unresolved(err error) string {
	if e, ok := errors.AsType[*net.DNSError](err); err == nil || ok && e.IsNotFound {
		return "its name has no address"
	}
	return "its name could not be resolved"
}

// dialOne connects to the first address that may be reached and answers.
func (s *Sender) dialOne(ctx context.Context, t target, addresses []netip.Addr) (net.Conn, error) {
	dialer := net.Dialer{Timeout: patience, Control: s.guard}
	failure := errNotAllowed
	tries := 0
	for _, a := range addresses {
		if !a.IsValid() {
			continue
		}
		conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(a.String(), t.port))
		if err == nil {
			return conn, nil
		}
		if errors.Is(err, errNotAllowed) {
			continue
		}
		failure = why(ctx, "no connection was made", notConnected(err))
		if tries++; tries == maxTries || ctx.Err() != nil {
			break
		}
	}
	return nil, failure
}

func notConnected(err error) string {
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		return "timed out: no connection was made"
	}
	return "no connection could be made"
}

// guard is asked by the dialer about the very address that it is about to connect to. No other check counts. An IPv4 address
// that was mapped into IPv6, as those of net.Resolver are, is IPv4 again here.
func (s *Sender) guard(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !s.allows(a.Addr()) {
		return errNotAllowed
	}
	if s.reached != nil {
		return s.reached(a)
	}
	return nil
}

// handshake speaks TLS over conn.
func (s *Sender) handshake(ctx context.Context, conn net.Conn, t target) (net.Conn, error) {
	secured := tls.Client(conn, &tls.Config{
		ServerName: t.url.Hostname(), RootCAs: s.Roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
	})
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, why(ctx, "the TLS handshake did not end", untrusted(err))
	}
	return secured, nil
}

// untrusted says what is wrong with a receiver's TLS, in our words.
func untrusted(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "TLS failed: its certificate is of no known authority"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "TLS failed: its certificate is for another name"
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok && e.Reason == x509.Expired {
		return "TLS failed: its certificate has expired, or is not valid yet"
	}
	return "TLS failed"
}
