package main

import "testing"

func TestHandshakeReasonDropsTheAddress(t *testing.T) {
	for line, want := range map[string]string{
		"http: TLS handshake error from 10.0.0.1:4711: EOF\n":             "EOF",
		"http: TLS handshake error from [::1]:4711: tls: bad certificate": "tls: bad certificate",
		"something else": "something else",
	} {
		if got := handshakeReason(line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
