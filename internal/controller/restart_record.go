package controller

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// RestartsConfigMap is where the controller writes down which workload it
// restarts. It is written before the workload is, and against the version that was
// read: whoever leads next goes on from there, and two that think they lead cannot
// both restart something.
const RestartsConfigMap = Name + "-restarts"

// The keys of the ConfigMap. All are gone while nothing is restarted.
const (
	recordKind      = "kind"
	recordNamespace = "namespace"
	recordName      = "name"
	recordUID       = "uid"
	recordTemplate  = "template"
	recordAt        = "at"
)

// record is a restart that has been begun.
type record struct {
	kind, namespace, name string
	uid                   types.UID
	// template is the hash that it is restarted for.
	template string
	// at is when it was begun.
	at time.Time
}

// book is the ConfigMap with the record.
type book struct {
	kube      kubernetes.Interface
	namespace string
	// read is the ConfigMap as it was last read or written.
	read *corev1.ConfigMap
}

// open reads the record; nil where nothing is being restarted.
func (b *book) open(ctx context.Context) (*record, error) {
	found, err := b.kube.CoreV1().ConfigMaps(b.namespace).Get(ctx, RestartsConfigMap, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s/%s, which the chart makes: %w", b.namespace, RestartsConfigMap, err)
	}
	b.read = found
	d := found.Data
	if d[recordName] == "" {
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339, d[recordAt])
	if err != nil {
		return nil, fmt.Errorf("ConfigMap %s/%s: %s: %w; empty its data to have it forgotten", b.namespace, RestartsConfigMap, recordAt, err)
	}
	return &record{
		kind: d[recordKind], namespace: d[recordNamespace], name: d[recordName], uid: types.UID(d[recordUID]), template: d[recordTemplate], at: at,
	}, nil
}

// write replaces the record that was read; nil empties it.
func (b *book) write(ctx context.Context, r *record) error {
	changed := b.read.DeepCopy()
	changed.Data = nil
	if r != nil {
		changed.Data = map[string]string{
			recordKind: r.kind, recordNamespace: r.namespace, recordName: r.name, recordUID: string(r.uid),
			recordTemplate: r.template, recordAt: r.at.UTC().Format(time.RFC3339),
		}
	}
	written, err := b.kube.CoreV1().ConfigMaps(b.namespace).Update(ctx, changed, metav1.UpdateOptions{FieldManager: Name})
	if err != nil {
		return fmt.Errorf("write ConfigMap %s/%s: %w", b.namespace, RestartsConfigMap, err)
	}
	b.read = written
	return nil
}
