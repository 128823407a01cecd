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

// overwrittenSecret is one Secret that somebody overwrites, in a namespace of its own.
type overwrittenSecret struct {
	name          string
	overwriteWith func(*corev1.Secret)
	// eventNote is in the Event about what is not overwritten; empty for what is healed.
	eventNote string

	namespace string
	// version is what stands there when it was overwritten.
	version string
}

// Somebody deletes the Secrets of the edges that carry requests, and overwrites
// others: what is no certificate of the edge is healed, what is someone else's stays
// and is told, until it is removed.
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
		{name: "another edge's", eventNote: "spiffe://", overwriteWith: func(s *corev1.Secret) { s.Data, s.Annotations = other.Data, other.Annotations }},
		{name: "someone else's", eventNote: "is not managed by Isthmus", overwriteWith: func(s *corev1.Secret) {
			s.Labels = map[string]string{policy.ManagedByLabel: "somebody"}
			s.Data["tls.crt"], s.Data["tls.key"] = leaf.ChainPEM, leaf.KeyPEM
		}},
	}
	for i, b := range overwritten {
		b.namespace = fmt.Sprintf("%s-%d", tr.Namespace, i)
		tr.createNamespace(b.namespace, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, map[string]string{policy.ServiceAccountKey: "default"})
	}
	tr.await("the first Secrets", func(ctx context.Context) error {
		return checkAll(ctx, tr, overwritten, (*overwrittenSecret).checkRestored)
	})

	before := map[*environment.SecretHistory]string{}
	for _, edge := range edges.Edges {
		l := tr.WatchSecret(edge.Namespace, edge.Account)
		tr.await("the edge's Secret", func(context.Context) error { return checkSecretReplaced(l, "") })
		before[l] = l.Current().ResourceVersion
		require.NoError(tr, cluster.Client.CoreV1().Secrets(edge.Namespace).Delete(ctx, secretName, metav1.DeleteOptions{}))
	}
	for _, b := range overwritten {
		tr.await("overwritten by "+b.name, func(ctx context.Context) error { return b.overwrite(ctx) })
	}
	tr.AwaitRecovery("deleted", func(context.Context) error { return checkSecretsReplaced(before) })
	tr.AwaitRecovery("overwritten", func(ctx context.Context) error {
		return checkAll(ctx, tr, overwritten[:5], (*overwrittenSecret).checkRestored)
	})

	for _, b := range overwritten[5:] {
		tr.await(b.name+" is refused", func(ctx context.Context) error {
			return checkEvent(ctx, b.namespace, "Conflict", time.Time{}, b.eventNote)
		})
		still, err := readSecret(ctx, b.namespace)
		require.NoError(tr, err)
		assert.Equal(tr, b.version, still.ResourceVersion, "what is %s is not overwritten", b.name)
		require.NoError(tr, cluster.Client.CoreV1().Secrets(b.namespace).Delete(ctx, secretName, metav1.DeleteOptions{}))
	}
	tr.AwaitRecovery("removed", func(ctx context.Context) error {
		return checkAll(ctx, tr, overwritten[5:], (*overwrittenSecret).checkRestored)
	})
}

// checkAll joins what is missing of each.
func checkAll(ctx context.Context, tr *Trial, secrets []*overwrittenSecret, check func(*overwrittenSecret, context.Context, *Trial) error) error {
	var errs error
	for _, b := range secrets {
		if err := check(b, ctx, tr); err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", b.name, err))
		}
	}
	return errs
}

// overwrite spoils the Secret.
func (b *overwrittenSecret) overwrite(ctx context.Context) error {
	s, err := readSecret(ctx, b.namespace)
	if err != nil {
		return err
	}
	b.overwriteWith(s)
	if s, err = cluster.Client.CoreV1().Secrets(b.namespace).Update(ctx, s, metav1.UpdateOptions{FieldManager: "somebody"}); err != nil {
		return err
	}
	b.version = s.ResourceVersion
	return nil
}

// checkRestored says that it is as it was overwritten, or holds no certificate of its edge.
func (b *overwrittenSecret) checkRestored(ctx context.Context, tr *Trial) error {
	s, err := readSecret(ctx, b.namespace)
	if err != nil {
		return err
	}
	if s.ResourceVersion == b.version {
		return errors.New("it is as it was overwritten")
	}
	return environment.ValidateSecret(s, environment.Identity(tr, b.namespace, "default"))
}

// checkSecretsReplaced says which Secrets are gone, or are still the ones of these versions.
func checkSecretsReplaced(versions map[*environment.SecretHistory]string) error {
	var errs error
	for l, version := range versions {
		errs = errors.Join(errs, checkSecretReplaced(l, version))
	}
	return errs
}

// checkSecretReplaced says that a Secret is gone, or is still the one of a version.
func checkSecretReplaced(l *environment.SecretHistory, version string) error {
	entries := l.Versions()
	if len(entries) == 0 || entries[len(entries)-1].Deleted {
		return errors.New("there is no Secret")
	}
	if current := l.Current(); current.ResourceVersion == version {
		return fmt.Errorf("secret %s/%s is of version %s still", current.Namespace, current.Name, version)
	}
	return nil
}
