package restart

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// ConfigMapName is the ConfigMap that records which workload is being restarted.
// The record is written before the workload is restarted, with the resourceVersion
// that was read. So the next leader continues from it, and two replicas that both
// consider themselves the leader cannot both restart a workload.
const ConfigMapName = "isthmus-controller-restarts"

// The keys of the ConfigMap. It has none of them while nothing is being restarted.
const (
	keyKind      = "kind"
	keyNamespace = "namespace"
	keyName      = "name"
	keyUID       = "uid"
	keyTemplate  = "template"
	keyAt        = "at"
)

// record is a restart that has begun.
type record struct {
	kind, namespace, name string
	uid                   types.UID
	// template is the hash of the template that the workload is restarted for.
	template string
	// at is when the restart began.
	at time.Time
}

// journal keeps the record in its ConfigMap.
type journal struct {
	kube      kubernetes.Interface
	namespace string
	// read is the ConfigMap as it was last read or written; store updates it.
	read *corev1.ConfigMap
}

// load reads the record; it is nil while nothing is being restarted.
func (j *journal) load(ctx context.Context) (*record, error) {
	found, err := j.kube.CoreV1().ConfigMaps(j.namespace).Get(ctx, ConfigMapName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s/%s, which is part of the chart: %w", j.namespace, ConfigMapName, err)
	}
	j.read = found
	d := found.Data
	if d[keyName] == "" {
		return nil, nil
	}
	at, err := time.Parse(time.RFC3339, d[keyAt])
	if err != nil {
		return nil, fmt.Errorf("ConfigMap %s/%s: %s: %w; empty its data to discard the record", j.namespace, ConfigMapName, keyAt, err)
	}
	return &record{
		kind: d[keyKind], namespace: d[keyNamespace], name: d[keyName], uid: types.UID(d[keyUID]), template: d[keyTemplate], at: at,
	}, nil
}

// store replaces the record that was read; nil empties the ConfigMap.
func (j *journal) store(ctx context.Context, r *record) error {
	changed := j.read.DeepCopy()
	changed.Data = nil
	if r != nil {
		changed.Data = map[string]string{
			keyKind: r.kind, keyNamespace: r.namespace, keyName: r.name, keyUID: string(r.uid),
			keyTemplate: r.template, keyAt: r.at.UTC().Format(time.RFC3339),
		}
	}
	written, err := j.kube.CoreV1().ConfigMaps(j.namespace).Update(ctx, changed, metav1.UpdateOptions{FieldManager: fieldManager})
	if err != nil {
		return fmt.Errorf("write ConfigMap %s/%s: %w", j.namespace, ConfigMapName, err)
	}
	j.read = written
	return nil
}
