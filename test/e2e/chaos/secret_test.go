//go:build chaos

package chaos

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// overwrittenSecret is a Secret that another client overwrites, in a namespace of its own.
type overwrittenSecret struct {
	name          string
	overwriteWith func(*corev1.Secret)
	// eventNote is a text in the Event if the Secret stays overwritten; empty if it is
	// restored.
	eventNote string

	namespace string
	// version is the resource version after the Secret was overwritten.
	version string
}

// Another client deletes the Secrets of the edges that carry requests, and overwrites
// others. Isthmus restores a Secret without a valid certificate of its edge; it leaves a
// Secret of another owner unchanged and reports it, until the Secret is removed.
func secretDeletedOrOverwritten(ctx context.Context, tr *Trial) {
	stranger := certtest.NewAuthority(tr)
	leaf := stranger.SPIFFELeaf(tr, "spiffe://cluster.local/ns/strange/sa/default")
	other, err := readSecret(ctx, edges.Edges[0].Namespace)
	require.NoError(tr, err)
	overwritten := []*overwrittenSecret{
		{name: "garbage", overwriteWith: func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("garbage") }},
		{name: "emptied", overwriteWith: func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = nil, nil }},
		{name: "another's key", overwriteWith: func(s *corev1.Secret) { s.Data["tls.key"] = leaf.KeyPEM }},
		{name: "a stranger's pair", overwriteWith: func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = leaf.ChainPEM, leaf.KeyPEM }},
		{name: "a stranger's root", overwriteWith: func(s *corev1.Secret) { s.Data["ca.crt"] = stranger.CertificatePEM }},
		{name: "of another edge", eventNote: "spiffe://", overwriteWith: func(s *corev1.Secret) { s.Data, s.Annotations = other.Data, other.Annotations }},
		{name: "of another owner", eventNote: "is not managed by Isthmus", overwriteWith: func(s *corev1.Secret) {
			s.Labels = map[string]string{policy.ManagedByLabel: "another-owner"}
			s.Data["tls.crt"], s.Data["tls.key"] = leaf.ChainPEM, leaf.KeyPEM
		}},
	}
	for i, b := range overwritten {
		b.namespace = fmt.Sprintf("%s-%d", tr.Namespace, i)
		tr.createNamespace(b.namespace, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, map[string]string{policy.ServiceAccountKey: "default"})
	}
	tr.await("the first Secrets exist", func(ctx context.Context) error {
		return checkAll(ctx, tr, overwritten, (*overwrittenSecret).checkRestored)
	})

	before := map[*environment.SecretHistory]string{}
	for _, edge := range edges.Edges {
		history := tr.WatchSecret(edge.Namespace, edge.Account)
		tr.await("the edge has a Secret", func(context.Context) error { return checkSecretReplaced(history, "") })
		before[history] = history.Written()
		require.NoError(tr, cluster.Client.CoreV1().Secrets(edge.Namespace).Delete(ctx, secretName, metav1.DeleteOptions{}))
	}
	for _, s := range overwritten {
		tr.await("overwrite the Secret: "+s.name, func(ctx context.Context) error { return s.overwrite(ctx) })
	}
	tr.AwaitRecovery("deleted", func(context.Context) error { return checkSecretsReplaced(before) })
	tr.AwaitRecovery("overwritten", func(ctx context.Context) error {
		return checkAll(ctx, tr, overwritten[:5], (*overwrittenSecret).checkRestored)
	})

	for _, s := range overwritten[5:] {
		tr.await("an Event reports the Secret "+s.name, func(ctx context.Context) error {
			return checkEvent(ctx, s.namespace, "Conflict", time.Time{}, s.eventNote)
		})
		still, err := readSecret(ctx, s.namespace)
		require.NoError(tr, err)
		assert.Equal(tr, s.version, still.ResourceVersion, "the Secret %s is left unchanged", s.name)
		require.NoError(tr, cluster.Client.CoreV1().Secrets(s.namespace).Delete(ctx, secretName, metav1.DeleteOptions{}))
	}
	tr.AwaitRecovery("removed", func(ctx context.Context) error {
		return checkAll(ctx, tr, overwritten[5:], (*overwrittenSecret).checkRestored)
	})
}

// checkAll joins the errors of a check for each Secret.
func checkAll(ctx context.Context, tr *Trial, secrets []*overwrittenSecret, check func(*overwrittenSecret, context.Context, *Trial) error) error {
	var errs error
	for _, s := range secrets {
		if err := check(s, ctx, tr); err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return errs
}

// overwrite changes the Secret as another client.
func (s *overwrittenSecret) overwrite(ctx context.Context) error {
	secret, err := readSecret(ctx, s.namespace)
	if err != nil {
		return err
	}
	s.overwriteWith(secret)
	if secret, err = cluster.Client.CoreV1().Secrets(s.namespace).Update(ctx, secret, metav1.UpdateOptions{FieldManager: "another-owner"}); err != nil {
		return err
	}
	s.version = secret.ResourceVersion
	return nil
}

// checkRestored returns an error while the Secret is as it was overwritten, or holds no
// certificate of its edge.
func (s *overwrittenSecret) checkRestored(ctx context.Context, tr *Trial) error {
	secret, err := readSecret(ctx, s.namespace)
	if err != nil {
		return err
	}
	if secret.ResourceVersion == s.version {
		return errors.New("it is still as it was overwritten")
	}
	return environment.ValidateSecret(secret, environment.Identity(tr, s.namespace, "default"))
}

// checkSecretsReplaced returns an error while any Secret is missing, or still has this
// version.
func checkSecretsReplaced(versions map[*environment.SecretHistory]string) error {
	var errs error
	for history, version := range versions {
		errs = errors.Join(errs, checkSecretReplaced(history, version))
	}
	return errs
}

// checkSecretReplaced returns an error while a Secret is missing, or still has this version.
func checkSecretReplaced(history *environment.SecretHistory, version string) error {
	versions := history.Versions()
	if len(versions) == 0 || versions[len(versions)-1].Deleted {
		return errors.New("the Secret does not exist")
	}
	if current := history.Current(); history.Written() == version {
		return fmt.Errorf("secret %s/%s still has version %s", current.Namespace, current.Name, version)
	}
	return nil
}
