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

// secretName is the Secret in which the controller publishes the edge's certificate.
const secretName = "istio-certs"

// showSecret shows the Secret as kubectl does, its certificate, Events and metric.
func (d *demo) showSecret(ctx context.Context) error {
	found, err := d.waitForSecret(ctx, "")
	if err != nil {
		return fmt.Errorf("%w; the controller's log ends with\n%s", err, d.logTail(controllerName))
	}
	if err := d.runAndShow(ctx, "kubectl", "--namespace", edgeNamespace, "describe", "secret", secretName); err != nil {
		return err
	}
	d.screen.printf("")
	roots, err := d.readRoots(ctx)
	if err != nil {
		return err
	}
	text, err := describeCertificate(found, roots, time.Now())
	if err != nil {
		return err
	}
	d.screen.printf("The certificate in tls.crt:\n%s", text)
	d.screen.printf("")
	if err := d.showEvents(ctx, corev1.EventTypeNormal, "Issued", "Published"); err != nil {
		return err
	}
	d.screen.printf("")
	d.screen.printf("The metric to alert on:\n  %s", d.metricLines(ctx, controllerName, "isthmus_certificate_not_after_timestamp_seconds"))
	return nil
}

// showRepair deletes the Secret, then damages it, and shows how the controller repairs
// it each time.
func (d *demo) showRepair(ctx context.Context) error {
	before, err := d.waitForSecret(ctx, "")
	if err != nil {
		return err
	}
	if err := d.runAndShow(ctx, "kubectl", "--namespace", edgeNamespace, "delete", "secret", secretName); err != nil {
		return err
	}
	recreated, err := d.waitForRepair(ctx, "The Secret is recreated", before)
	if err != nil {
		return err
	}

	d.screen.printf("")
	d.screen.command("kubectl --namespace " + edgeNamespace + " patch secret " + secretName + ` --patch '{"data": {"tls.key": "<a new key>"}}'`)
	if err := d.replaceKey(ctx); err != nil {
		return err
	}
	if _, err := d.waitForRepair(ctx, "The key belongs to the certificate again", recreated); err != nil {
		return err
	}
	if err := d.showEvents(ctx, corev1.EventTypeWarning, "Rejected"); err != nil {
		return err
	}
	d.screen.printf("")
	d.screen.printf("The controller's metric:\n  %s", d.metricLines(ctx, controllerName, `isthmus_bundle_rejected_total{reason="key-mismatch"}`))
	return nil
}

// waitForRepair waits for a valid Secret with another certificate than before, and
// prints result with the time that it took.
func (d *demo) waitForRepair(ctx context.Context, result string, before *corev1.Secret) (*corev1.Secret, error) {
	begun := time.Now()
	d.screen.printf("Waiting for the controller to repair the Secret")
	found, err := d.waitForSecret(ctx, serial(before))
	if err != nil {
		return nil, fmt.Errorf("%w; the controller's log ends with\n%s", err, d.logTail(controllerName))
	}
	d.screen.printf("%s after %s, with a new certificate, serial %s", result, seconds(time.Since(begun)), serial(found))
	return found, nil
}

// waitForSecret waits for a Secret whose key belongs to its certificate, and whose
// serial number is not oldSerial.
func (d *demo) waitForSecret(ctx context.Context, oldSerial string) (*corev1.Secret, error) {
	var found *corev1.Secret
	err := waitFor(ctx, 30*time.Second, func() error {
		out, err := d.run(ctx, "kubectl", "--namespace", edgeNamespace, "get", "secret", secretName, "--output", "json")
		if err != nil {
			return err
		}
		secret := &corev1.Secret{}
		if err := json.Unmarshal(out, secret); err != nil {
			return fmt.Errorf("secret %s: %w", secretName, err)
		}
		if err := checkKeyPair(secret); err != nil {
			return fmt.Errorf("secret %s: %w", secretName, err)
		}
		if oldSerial != "" && serial(secret) == oldSerial {
			return fmt.Errorf("secret %s still has the certificate of serial %s", secretName, oldSerial)
		}
		found = secret
		return nil
	})
	return found, err
}

// readRoots reads the roots that istiod publishes in the edge's namespace.
func (d *demo) readRoots(ctx context.Context) ([]*x509.Certificate, error) {
	out, err := d.run(ctx, "kubectl", "--namespace", edgeNamespace, "get", "configmap", istio.RootConfigMap, "--output", `jsonpath={.data.root-cert\.pem}`)
	if err != nil {
		return nil, err
	}
	return certs.ParseCertificates(out)
}

// replaceKey writes a key that does not belong to the certificate into the Secret. It
// passes the key by standard input, because a command line is visible to other users.
func (d *demo) replaceKey(ctx context.Context) error {
	key, err := generateKey()
	if err != nil {
		return err
	}
	patch, err := json.Marshal(map[string]any{"data": map[string][]byte{corev1.TLSPrivateKeyKey: key}})
	if err != nil {
		return err
	}
	command := d.command(ctx, "kubectl", "--namespace", edgeNamespace, "patch", "secret", secretName, "--patch-file", "/dev/stdin")
	command.Stdin = bytes.NewReader(patch)
	out, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("patch secret %s: %w: %s", secretName, err, out)
	}
	d.screen.printf("%s", out)
	return nil
}

// showEvents shows the Events of some types about the Secret, after it has waited for
// one of each reason.
func (d *demo) showEvents(ctx context.Context, types string, reasons ...string) error {
	arguments := []string{"--namespace", edgeNamespace, "events", "--for", "secret/" + secretName, "--types", types}
	if err := waitFor(ctx, 10*time.Second, func() error {
		out, err := d.run(ctx, "kubectl", arguments...)
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
	return d.runAndShow(ctx, "kubectl", arguments...)
}
