package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

func secretVersion(version string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "istio-certs", ResourceVersion: version}}
}

func TestFollowerDeliversVersions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		watches := make(chan *watch.FakeWatcher, 1)
		f := newSecretFollower(func(context.Context) (watch.Interface, error) { return <-watches, nil }, func() float64 { return 0 }, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan bool)
		go func() {
			f.run(ctx)
			ended <- true
		}()
		first := watch.NewFake()
		watches <- first
		assert.Empty(t, <-f.versions, "something may have been missed")
		first.Add(secretVersion("1"))
		assert.Equal(t, "1", <-f.versions)
		first.Modify(secretVersion("2"))
		first.Modify(secretVersion("3"))
		synctest.Wait()
		assert.Equal(t, "3", <-f.versions, "the newest")
		first.Delete(secretVersion("4"))
		assert.Empty(t, <-f.versions, "deleted")
		first.Stop()

		second := watch.NewFake()
		watches <- second
		assert.Empty(t, <-f.versions, "something may have been missed")
		second.Error(&metav1.Status{Reason: metav1.StatusReasonExpired})
		third := watch.NewFake()
		watches <- third
		assert.Empty(t, <-f.versions)

		// A Secret that changes without end is read at a limited rate.
		synctest.Wait()
		began, changes := time.Now(), changeBurst+10
		go func() {
			for range changes {
				third.Modify(secretVersion("5"))
			}
			third.Stop()
			watches <- watch.NewFake()
		}()
		for version := range f.versions {
			if version == "" {
				break
			}
		}
		assert.Greater(t, time.Since(began), 5*changePause)
		cancel()
		<-ended
	})
}

func TestFollowerWithoutTheRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		attempts := 0
		ctx, cancel := context.WithCancel(t.Context())
		f := newSecretFollower(func(context.Context) (watch.Interface, error) {
			if attempts++; attempts == 20 {
				cancel()
			}
			return nil, apierrors.NewForbidden(corev1.Resource("secrets"), "istio-certs", errors.New("no role"))
		}, func() float64 { return 0.5 }, slog.New(slog.NewTextHandler(&log, nil)))
		began := time.Now()
		f.run(ctx)
		assert.Greater(t, time.Since(began), 10*time.Second, "with a backoff")
		assert.Equal(t, 1, strings.Count(log.String(), "may not watch the Secret"), &log)
		assert.Empty(t, f.versions)
	})
}

func TestOwnVersionsAreNoChanges(t *testing.T) {
	l := publishLoop{version: "7"}
	assert.False(t, l.isElses("7"))
	assert.True(t, l.isElses("8"))
	assert.True(t, l.isElses(""), "deleted")
	l.version = ""
	assert.True(t, l.isElses(""), "nothing was written yet")
	s := schedule{random: func() float64 { return 1 }}
	require.Equal(t, changeSpread, s.afterChange())
}
