package controller

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// namespacePages lists Namespaces, two on each page.
type namespacePages struct {
	client.Reader
	namespaces []corev1.Namespace
	// fail are the errors of the first requests, in order; nil means success.
	fail      []error
	continued []string
}

func (p *namespacePages) List(_ context.Context, list client.ObjectList, o ...client.ListOption) error {
	options := (&client.ListOptions{}).ApplyOptions(o)
	p.continued = append(p.continued, options.Continue)
	if len(p.fail) > 0 {
		err := p.fail[0]
		p.fail = p.fail[1:]
		if err != nil {
			return err
		}
	}
	out, ok := list.(*metav1.PartialObjectMetadataList)
	if !ok {
		return errors.New("want metadata")
	}
	var selected []metav1.PartialObjectMetadata
	for _, ns := range p.namespaces {
		if options.LabelSelector.Matches(labels.Set(ns.Labels)) {
			selected = append(selected, metav1.PartialObjectMetadata{ObjectMeta: ns.ObjectMeta})
		}
	}
	first := 0
	for first < len(selected) && options.Continue != "" && selected[first].Name != options.Continue {
		first++
	}
	last := min(first+2, len(selected))
	out.Items, out.Continue = selected[first:last], ""
	if last < len(selected) {
		out.Continue = selected[last].Name
	}
	return nil
}

func TestOrphanCollectorRequeuesNamespacesThatAreNotOptedIn(t *testing.T) {
	namespace := func(name, injection string) corev1.Namespace {
		ns := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if injection != "" {
			ns.Labels = map[string]string{policy.InjectionLabel: injection}
		}
		return ns
	}
	all := []corev1.Namespace{namespace("a", ""), namespace("b", policy.InjectionEnabled), namespace("c", policy.InjectionDisabled), namespace("d", ""), namespace("e", "")}
	for name, test := range map[string]struct {
		namespaces []corev1.Namespace
		fail       []error
		want       []string
		continued  []string
		duration   time.Duration
	}{
		"if there are several pages, expect every namespace once": {
			namespaces: all, want: []string{"a", "c", "d", "e"}, continued: []string{"", "d"}, duration: 4 * orphanInterval,
		},
		"if all are opted in, expect none": {namespaces: all[1:2], continued: []string{""}},
		"if the list fails, expect another attempt later": {
			namespaces: all[:1], fail: []error{errors.New("timeout")}, want: []string{"a"}, continued: []string{"", ""}, duration: lastRetry + orphanInterval,
		},
		"if a later page fails, expect the list from its beginning": {
			namespaces: all, fail: []error{nil, errors.New("expired")}, want: []string{"a", "c", "a", "c", "d", "e"}, continued: []string{"", "d", "", "d"}, duration: lastRetry + 6*orphanInterval,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requeue := make(chan event.GenericEvent)
				pages := &namespacePages{namespaces: test.namespaces, fail: test.fail}
				c := &orphanCollector{reader: pages, requeue: requeue}
				began := time.Now()
				done := make(chan error)
				go func() { done <- c.Start(t.Context()) }()
				var got []string
				for {
					select {
					case e := <-requeue:
						got = append(got, e.Object.GetName())
						continue
					case err := <-done:
						require.NoError(t, err)
					}
					break
				}
				assert.Equal(t, test.want, got)
				assert.Equal(t, test.continued, pages.continued)
				assert.InDelta(t, test.duration, time.Since(began), float64(orphanInterval))
			})
		})
	}
}

func TestOrphanCollectorEndsWithItsContext(t *testing.T) {
	for name, pages := range map[string]*namespacePages{
		"if it waits after a failure, expect its end":        {fail: []error{errors.New("timeout")}},
		"if it waits for the next namespace, expect its end": {namespaces: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				c := &orphanCollector{reader: pages, requeue: make(chan event.GenericEvent)}
				done := make(chan error)
				go func() { done <- c.Start(ctx) }()
				synctest.Wait()
				began := time.Now()
				cancel()
				assert.NoError(t, <-done)
				assert.Zero(t, time.Since(began))
			})
		})
	}
}
