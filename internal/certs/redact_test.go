package certs_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// nesting holds the values as fields of another value.
type nesting struct {
	Material certs.Material
	Pointer  *certs.Material
	Bundle   certs.Bundle
	Bundles  []*certs.Bundle
	ByName   map[string]certs.Material
	hidden   certs.Bundle
}

func TestNothingPrintsAKey(t *testing.T) {
	root := authority(t, "mesh root")
	leaf := leafOf(t, root)
	m := material(leaf, root)
	b, err := certs.New(m, wanted(root))
	require.NoError(t, err)
	block, _ := pem.Decode(leaf.KeyPEM)
	var decimal, hexadecimal []string
	for _, c := range m.Key[:32] {
		decimal = append(decimal, fmt.Sprint(c))
		hexadecimal = append(hexadecimal, fmt.Sprintf("%#x", c))
	}
	secrets := map[string]string{
		"PEM":          strings.Split(string(m.Key), "\n")[1],
		"base64":       "LS0tLS1CRUdJTi", // of -----BEGIN
		"hexadecimal":  hex.EncodeToString(m.Key[:32]),
		"DER":          hex.EncodeToString(block.Bytes[len(block.Bytes)-16:]),
		"numbers":      strings.Join(decimal, " "),
		"JSON numbers": strings.Join(decimal, ","),
		"Go":           strings.Join(hexadecimal, ", "),
		"binary":       fmt.Sprintf("%b", m.Key[0]),
		"octal":        fmt.Sprintf("%o %o %o %o %o %o", m.Key[0], m.Key[1], m.Key[2], m.Key[3], m.Key[4], m.Key[5]),
		"type":         "PRIVATE KEY",
	}
	secrets["binary"] = strings.Repeat(secrets["binary"]+" ", 5) // five dashes
	clean := func(how, printed string) {
		t.Helper()
		require.NotEmpty(t, printed, how)
		for form, secret := range secrets {
			if strings.Contains(strings.ToLower(printed), strings.ToLower(secret)) {
				t.Errorf("%s prints the key (%s)", how, form)
			}
		}
	}

	values := map[string]any{
		"Material": m, "*Material": &m, "Bundle": *b, "*Bundle": b, "nil": (*certs.Bundle)(nil), "zero": certs.Bundle{},
		"nesting":  nesting{m, &m, *b, []*certs.Bundle{b}, map[string]certs.Material{"a": m}, *b},
		"*nesting": &nesting{m, &m, *b, []*certs.Bundle{b}, map[string]certs.Material{"a": m}, *b},
		"list":     []any{m, b}, "error": fmt.Errorf("%v %+v %d", m, b, *b),
	}
	for name, value := range values {
		for _, verb := range strings.Split("v +v #v s q x X #x d b o O c U t e g p T 10s -d", " ") {
			if verb == "p" && name != "Bundle" && name != "*Bundle" {
				continue // fmt asks no method for %p, and go vet forbids it
			}
			clean(name+" as %"+verb, fmt.Sprintf("%"+verb, value))
		}
		if name == "nil" {
			continue
		}
		asJSON, err := json.Marshal(value)
		require.NoError(t, err)
		clean(name+" as JSON", string(asJSON))
		asYAML, err := yaml.Marshal(value)
		require.NoError(t, err)
		clean(name+" as YAML", string(asYAML))

		var out bytes.Buffer
		slog.New(slog.NewJSONHandler(&out, nil)).Info("here", "value", value)
		slog.New(slog.NewTextHandler(&out, nil)).Info("here", "value", value)
		toFuncr := funcr.New(func(prefix, args string) { out.WriteString(prefix + args) }, funcr.Options{})
		toFuncr.Info("here", "value", value)
		logr.FromSlogHandler(slog.NewJSONHandler(&out, nil)).Info("here", "value", value)
		zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), zapcore.AddSync(&out), zapcore.InfoLevel)).
			Info("here", zap.Any("value", value))
		clean(name+" in a log", out.String())
	}
	for _, err := range []error{
		rejection(t, certs.Material{Key: m.Chain, Chain: m.Key}),
		rejection(t, certs.Material{Key: m.Key[:len(m.Key)/2], Chain: m.Chain}),
		rejection(t, certs.Material{Key: append([]byte("-----BEGIN CERTIFICATE-----\n"), m.Key[28:]...), Chain: m.Chain}),
		rejection(t, certs.Material{Key: m.Key, Chain: leafOf(t, root).ChainPEM}),
	} {
		secrets["type"] = "\n" // errors may name the type of a block, in one line
		clean("an error", err.Error())
	}
}

func rejection(t *testing.T, m certs.Material) error {
	t.Helper()
	_, err := certs.New(m, wanted())
	require.Error(t, err)
	return err
}
