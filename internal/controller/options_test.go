package controller

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestSettingsHaveTheWebhooksDefaults(t *testing.T) {
	o := Options{}.withDefaults()
	assert.Equal(t, []string{"istio-certs"}, o.Settings.SecretNames)
	assert.Equal(t, []string{"kube-system"}, o.Settings.ExcludedNamespaces)
}
