package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

// secretName is where the edge's certificate is published.
const secretName = "istio-certs"

// published shows the Secret as a user would look at it, and why it is there.
func (d *demo) published(ctx context.Context) error {
	found, err := d.standing(ctx, "")
	if err != nil {
		return fmt.Errorf("%w; the controller's log ends with\n%s", err, d.lastLog(controllerName))
	}
	if err := d.show(ctx, "kubectl", "--namespace", edgeSpace, "describe", "secret", secretName); err != nil {
		return err
	}
	d.screen.say("")
	roots, err := d.roots(ctx)
	if err != nil {
		return err
	}
	text, err := describe(found, roots, time.Now())
	if err != nil {
		return err
	}
	d.screen.say("Its tls.crt, read:\n%s", text)
	d.screen.say("")
	if err := d.told(ctx, corev1.EventTypeNormal, "Issued", "Published"); err != nil {
		return err
	}
	d.screen.say("")
	d.screen.say("The metric to alarm on:\n  %s", d.metric(ctx, controllerName, "isthmus_certificate_not_after_timestamp_seconds"))
	return nil
}

// healed deletes the Secret and damages it, and shows what becomes of that.
func (d *demo) healed(ctx context.Context) error {
	before, err := d.standing(ctx, "")
	if err != nil {
		return err
	}
	if err := d.show(ctx, "kubectl", "--namespace", edgeSpace, "delete", "secret", secretName); err != nil {
		return err
	}
	back, err := d.restored(ctx, "It is back", before)
	if err != nil {
		return err
	}

	d.screen.say("")
	d.screen.command("kubectl --namespace " + edgeSpace + " patch secret " + secretName + ` --patch '{"data": {"tls.key": "<a new key>"}}'`)
	if err := d.damage(ctx); err != nil {
		return err
	}
	if _, err := d.restored(ctx, "Key and certificate match again", back); err != nil {
		return err
	}
	if err := d.told(ctx, corev1.EventTypeWarning, "Rejected"); err != nil {
		return err
	}
	d.screen.say("")
	d.screen.say("The controller's metric:\n  %s", d.metric(ctx, controllerName, `isthmus_bundle_rejected_total{reason="key-mismatch"}`))
	return nil
}

// restored waits for a good Secret with another certificate than before, and
// says how long that took.
func (d *demo) restored(ctx context.Context, what string, before *corev1.Secret) (*corev1.Secret, error) {
	begun := time.Now()
	d.screen.say("Waiting for the controller to look at it")
	found, err := d.standing(ctx, serial(before))
	if err != nil {
		return nil, fmt.Errorf("%w; the controller's log ends with\n%s", err, d.lastLog(controllerName))
	}
	d.screen.say("%s after %s, with a new certificate, serial %s", what, seconds(time.Since(begun)), serial(found))
	return found, nil
}

// standing waits for a Secret whose key belongs to its certificate, which is of
// another serial than the given one.
func (d *demo) standing(ctx context.Context, not string) (*corev1.Secret, error) {
	var found *corev1.Secret
	err := await(ctx, 30*time.Second, func() error {
		out, err := d.output(ctx, "kubectl", "--namespace", edgeSpace, "get", "secret", secretName, "--output", "json")
		if err != nil {
			return err
		}
		secret := &corev1.Secret{}
		if err := json.Unmarshal(out, secret); err != nil {
			return fmt.Errorf("secret %s: %w", secretName, err)
		}
		if err := matching(secret); err != nil {
			return fmt.Errorf("secret %s: %w", secretName, err)
		}
		if not != "" && serial(secret) == not {
			return fmt.Errorf("secret %s still has the certificate of serial %s", secretName, not)
		}
		found = secret
		return nil
	})
	return found, err
}

// roots are what istiod publishes in the edge's namespace.
func (d *demo) roots(ctx context.Context) ([]*x509.Certificate, error) {
	out, err := d.output(ctx, "kubectl", "--namespace", edgeSpace, "get", "configmap", istio.RootConfigMap, "--output", `jsonpath={.data.root-cert\.pem}`)
	if err != nil {
		return nil, err
	}
	return certs.ParseCertificates(out)
}

// damage puts a key into the Secret that does not belong to its certificate. It
// goes by standard input: a key is on no command line.
func (d *demo) damage(ctx context.Context) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"data": map[string][]byte{corev1.TLSPrivateKeyKey: key}})
	if err != nil {
		return err
	}
	command := d.program(ctx, "kubectl", "--namespace", edgeSpace, "patch", "secret", secretName, "--patch-file", "/dev/stdin")
	command.Stdin = bytes.NewReader(patch)
	out, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("patch secret %s: %w: %s", secretName, err, out)
	}
	d.screen.say("%s", out)
	return nil
}

// told shows the Events about the Secret, of some types, once one of each reason
// is among them.
func (d *demo) told(ctx context.Context, types string, reasons ...string) error {
	arguments := []string{"--namespace", edgeSpace, "events", "--for", "secret/" + secretName, "--types", types}
	if err := await(ctx, 10*time.Second, func() error {
		out, err := d.output(ctx, "kubectl", arguments...)
		if err != nil {
			return err
		}
		words := strings.Fields(string(out))
		for _, reason := range reasons {
			if !slices.Contains(words, reason) {
				return fmt.Errorf("no Event %s about secret %s", reason, secretName)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return d.show(ctx, "kubectl", arguments...)
}
