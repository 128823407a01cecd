package main

import "strings"

// handshakeReason removes the client's address from a line that net/http logs for a
// failed handshake: "http: TLS handshake error from 10.0.0.1:4711: EOF".
func handshakeReason(line string) string {
	line = strings.TrimSpace(line)
	if _, rest, found := strings.Cut(line, " from "); found {
		if _, reason, found := strings.Cut(rest, ": "); found {
			return reason
		}
	}
	return line
}
