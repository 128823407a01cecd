package controller

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// vault answers every read with what it holds now.
type vault struct {
	Secrets
	holds *corev1.Secret
}

func (v *vault) Get(context.Context, string, string) (*corev1.Secret, error) { return v.holds, nil }

// A conflict makes a publisher read again, and then it must not get what it got
// before.
func TestReadOnceReadsAnewTheSecondTime(t *testing.T) {
	secret := func(version string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}}
	}
	for name, current := range map[string]*corev1.Secret{
		"if one was there, expect that first":  secret("1"),
		"if none was there, expect that first": nil,
	} {
		t.Run(name, func(t *testing.T) {
			o := &readOnce{Secrets: &vault{holds: secret("2")}, current: current}
			first, err := o.Get(t.Context(), "edge", "istio-certs")
			if current == nil {
				assert.True(t, apierrors.IsNotFound(err), err)
			} else {
				require.NoError(t, err)
				assert.Equal(t, "1", first.ResourceVersion)
			}
			second, err := o.Get(t.Context(), "edge", "istio-certs")
			require.NoError(t, err)
			assert.Equal(t, "2", second.ResourceVersion)
		})
	}
}
