package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWebhookFlagsAreLimited(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*webhookFlags)
		want string
	}{
		"if reviews are refused at once, expect an error": {func(f *webhookFlags) { f.server.ShutdownDelay = 0 }, "--shutdown-delay 0s: want a duration from 1s to 1m0s"},
		"if the delay is negative, expect an error":       {func(f *webhookFlags) { f.server.ShutdownDelay = -time.Second }, "--shutdown-delay -1s: want"},
		"if the kubelet would not wait, expect an error":  {func(f *webhookFlags) { f.server.ShutdownDelay = time.Hour }, "--shutdown-delay 1h0m0s: want"},
		"if a leaf cannot be renewed, expect an error":    {func(f *webhookFlags) { f.leafTTL = time.Second }, "--leaf-ttl 1s: want at least 5s"},
		"if the port is none, expect an error":            {func(f *webhookFlags) { f.server.Port = 70000 }, "--port 70000: want a port from 1 to 65535"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &webhookFlags{tlsCertDir: "certs", leafTTL: time.Hour}
			f.server.Port, f.server.ShutdownDelay = 10250, 5*time.Second
			c.edit(f)

			err := f.check()

			require.Error(t, err)
			assert.Contains(t, err.Error(), c.want)
		})
	}
}
