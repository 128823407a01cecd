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

// byHand is one Secret that somebody overwrites, in a namespace of its own.
type byHand struct {
	what  string
	spoil func(*corev1.Secret)
	// refused is in the Event about what is not overwritten; empty for what is healed.
	refused string

	namespace string
	// version is what stands there when it was overwritten.
	version string
}

// Somebody deletes the Secrets of the edges that carry requests, and overwrites
// others: what is no certificate of the edge is healed, what is someone else's stays
// and is told, until it is removed.
func secretByHand(ctx context.Context, tr *Trial) {
	stranger := certtest.NewAuthority(tr)
	leaf := stranger.SPIFFELeaf(tr, "spiffe://cluster.local/ns/strange/sa/default")
	other, err := secret(ctx, edges.Edges[0].Namespace)
	require.NoError(tr, err)
	spoilt := []*byHand{
		{what: "garbage", spoil: func(s *corev1.Secret) { s.Data["tls.crt"] = []byte("garbage") }},
		{what: "emptied", spoil: func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = nil, nil }},
		{what: "another's key", spoil: func(s *corev1.Secret) { s.Data["tls.key"] = leaf.KeyPEM }},
		{what: "a stranger's pair", spoil: func(s *corev1.Secret) { s.Data["tls.crt"], s.Data["tls.key"] = leaf.ChainPEM, leaf.KeyPEM }},
		{what: "a stranger's root", spoil: func(s *corev1.Secret) { s.Data["ca.crt"] = stranger.CertificatePEM }},
		{what: "another edge's", refused: "spiffe://", spoil: func(s *corev1.Secret) { s.Data, s.Annotations = other.Data, other.Annotations }},
		{what: "someone else's", refused: "is not managed by Isthmus", spoil: func(s *corev1.Secret) {
			s.Labels = map[string]string{policy.ManagedByLabel: "somebody"}
			s.Data["tls.crt"], s.Data["tls.key"] = leaf.ChainPEM, leaf.KeyPEM
		}},
	}
	for i, b := range spoilt {
		b.namespace = fmt.Sprintf("%s-%d", tr.Namespace, i)
		tr.namespace(b.namespace, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, map[string]string{policy.ServiceAccountKey: "default"})
	}
	tr.await("the first Secrets", func(ctx context.Context) error { return all(ctx, tr, spoilt, (*byHand).sound) })

	before := map[*environment.SecretHistory]string{}
	for _, edge := range edges.Edges {
		l := tr.Follow(edge.Namespace, edge.Account)
		tr.await("the edge's Secret", func(context.Context) error { return standing(l, "") })
		before[l] = l.Current().ResourceVersion
		require.NoError(tr, cluster.Client.CoreV1().Secrets(edge.Namespace).Delete(ctx, secretName, metav1.DeleteOptions{}))
	}
	for _, b := range spoilt {
		tr.await("overwritten by "+b.what, func(ctx context.Context) error { return b.overwrite(ctx) })
	}
	tr.Heal("deleted", func(context.Context) error { return replaced(before) })
	tr.Heal("overwritten", func(ctx context.Context) error { return all(ctx, tr, spoilt[:5], (*byHand).sound) })

	for _, b := range spoilt[5:] {
		tr.await(b.what+" is refused", func(ctx context.Context) error { return told(ctx, b.namespace, "Conflict", time.Time{}, b.refused) })
		still, err := secret(ctx, b.namespace)
		require.NoError(tr, err)
		assert.Equal(tr, b.version, still.ResourceVersion, "what is %s is not overwritten", b.what)
		require.NoError(tr, cluster.Client.CoreV1().Secrets(b.namespace).Delete(ctx, secretName, metav1.DeleteOptions{}))
	}
	tr.Heal("removed", func(ctx context.Context) error { return all(ctx, tr, spoilt[5:], (*byHand).sound) })
}

// all joins what is missing of each.
func all(ctx context.Context, tr *Trial, of []*byHand, missing func(*byHand, context.Context, *Trial) error) error {
	var errs error
	for _, b := range of {
		if err := missing(b, ctx, tr); err != nil {
			errs = errors.Join(errs, fmt.Errorf("%s: %w", b.what, err))
		}
	}
	return errs
}

// overwrite spoils the Secret.
func (b *byHand) overwrite(ctx context.Context) error {
	s, err := secret(ctx, b.namespace)
	if err != nil {
		return err
	}
	b.spoil(s)
	if s, err = cluster.Client.CoreV1().Secrets(b.namespace).Update(ctx, s, metav1.UpdateOptions{FieldManager: "somebody"}); err != nil {
		return err
	}
	b.version = s.ResourceVersion
	return nil
}

// sound says that it is as it was overwritten, or holds no certificate of its edge.
func (b *byHand) sound(ctx context.Context, tr *Trial) error {
	s, err := secret(ctx, b.namespace)
	if err != nil {
		return err
	}
	if s.ResourceVersion == b.version {
		return errors.New("it is as it was overwritten")
	}
	return environment.ValidateSecret(s, environment.Identity(tr, b.namespace, "default"))
}

// replaced says which Secrets are gone, or are still the ones of these versions.
func replaced(versions map[*environment.SecretHistory]string) error {
	var errs error
	for l, version := range versions {
		errs = errors.Join(errs, standing(l, version))
	}
	return errs
}

// standing says that a Secret is gone, or is still the one of a version.
func standing(l *environment.SecretHistory, version string) error {
	entries := l.Versions()
	if len(entries) == 0 || entries[len(entries)-1].Deleted {
		return errors.New("there is no Secret")
	}
	if current := l.Current(); current.ResourceVersion == version {
		return fmt.Errorf("secret %s/%s is of version %s still", current.Namespace, current.Name, version)
	}
	return nil
}
