package admission

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// workloads are the kinds that make pods, each around the same template.
var workloads = map[string]func(corev1.PodTemplateSpec) client.Object{
	"Deployment": func(t corev1.PodTemplateSpec) client.Object {
		return &appsv1.Deployment{TypeMeta: apps("Deployment"), ObjectMeta: justEdge, Spec: appsv1.DeploymentSpec{Replicas: new(int32), Selector: edges, Template: t}}
	},
	"DaemonSet": func(t corev1.PodTemplateSpec) client.Object {
		return &appsv1.DaemonSet{TypeMeta: apps("DaemonSet"), ObjectMeta: justEdge, Spec: appsv1.DaemonSetSpec{Selector: edges, Template: t}}
	},
	"StatefulSet": func(t corev1.PodTemplateSpec) client.Object {
		return &appsv1.StatefulSet{TypeMeta: apps("StatefulSet"), ObjectMeta: justEdge, Spec: appsv1.StatefulSetSpec{Replicas: new(int32), Selector: edges, Template: t}}
	},
	"ReplicaSet": func(t corev1.PodTemplateSpec) client.Object {
		return &appsv1.ReplicaSet{TypeMeta: apps("ReplicaSet"), ObjectMeta: justEdge, Spec: appsv1.ReplicaSetSpec{Replicas: new(int32), Selector: edges, Template: t}}
	},
	"ReplicationController": func(t corev1.PodTemplateSpec) client.Object {
		return &corev1.ReplicationController{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ReplicationController"}, ObjectMeta: justEdge,
			Spec: corev1.ReplicationControllerSpec{Replicas: new(int32), Selector: edges.MatchLabels, Template: &t}}
	},
	"Job": func(t corev1.PodTemplateSpec) client.Object {
		suspend := true
		t.Spec.RestartPolicy = corev1.RestartPolicyNever
		return &batchv1.Job{TypeMeta: batch("Job"), ObjectMeta: justEdge, Spec: batchv1.JobSpec{Suspend: &suspend, Template: t}}
	},
	"CronJob": func(t corev1.PodTemplateSpec) client.Object {
		t.Spec.RestartPolicy = corev1.RestartPolicyNever
		return &batchv1.CronJob{TypeMeta: batch("CronJob"), ObjectMeta: justEdge,
			Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: t}}}}
	},
}

var (
	justEdge = metav1.ObjectMeta{Name: "edge"}
	edges    = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "edge"}}
)

func apps(kind string) metav1.TypeMeta  { return metav1.TypeMeta{APIVersion: "apps/v1", Kind: kind} }
func batch(kind string) metav1.TypeMeta { return metav1.TypeMeta{APIVersion: "batch/v1", Kind: kind} }

// templateOf makes a template of a pod.
func templateOf(pod *corev1.Pod) corev1.PodTemplateSpec {
	labelled("app", "edge")(pod)
	meta := pod.ObjectMeta
	meta.Name = ""
	return corev1.PodTemplateSpec{ObjectMeta: meta, Spec: pod.Spec}
}

func edgeTemplate(changes ...func(*corev1.Pod)) corev1.PodTemplateSpec {
	return templateOf(edgePod("", changes...))
}

// What would be refused or warned of when its pods are created is so when it is
// applied, in the terminal.
func TestApplySaysWhatThePodsWouldBeTold(t *testing.T) {
	opted, plain := newSpace(t, enabled), newSpace(t)
	for kind, workload := range workloads {
		t.Run(kind, func(t *testing.T) {
			// No profile takes the pod of a Job for an edge unless it is named.
			misspelt := edgeTemplate(annotated("isthmus.dev/profile", "emissary"), annotated("isthmus.dev/delivry", "secret"))
			out, complaint, err := opted.kubectl(workload(misspelt), "apply", "--dry-run=server", "-f", "-")
			require.NoError(t, err, complaint)
			assert.Contains(t, out, "/edge created (server dry run)\n")
			assert.Equal(t, "Warning: isthmus: annotation isthmus.dev/delivry is not known and has no effect; did you mean isthmus.dev/delivery?\n", complaint)

			_, complaint, err = plain.kubectl(workload(edgeTemplate(labelled("isthmus.dev/inject", "yes"))), "apply", "-f", "-")
			require.Error(t, err)
			assert.Equal(t, `Error from server (Forbidden): error when creating "STDIN": admission webhook "pod.template.isthmus.dev" denied the request: `+
				`invalid-override: pod template of `+kind+` edge: label isthmus.dev/inject: "yes" is not allowed; want "true" or "false"`+"\n", complaint)

			assert.EqualError(t, opted.tryWorkload(workload(edgeTemplate(annotated("isthmus.dev/delivery", "pigeon")))),
				`admission webhook "namespace.template.isthmus.dev" denied the request: `+
					`invalid-override: pod template of `+kind+` edge: annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret`)
			assert.NoError(t, opted.tryWorkload(workload(edgeTemplate())))
		})
	}
}

// tryWorkload has the API server do everything but keep the workload.
func (s *space) tryWorkload(workload client.Object) error {
	s.t.Helper()
	workload.SetNamespace(s.name)
	return world.objects.Create(s.t.Context(), workload, client.DryRunAll)
}

// A template is changed in no way.
func TestTemplateComesOutAsItWentIn(t *testing.T) {
	plain, opted := newSpace(t), newSpace(t, enabled)
	deploy := func(s *space) *appsv1.Deployment {
		got, err := s.client.AppsV1().Deployments(s.name).Create(t.Context(), workloads["Deployment"](edgeTemplate()).(*appsv1.Deployment),
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.NoError(t, err)
		return got
	}
	assert.Equal(t, deploy(plain).Spec, deploy(opted).Spec)
}

// What was there before is not blocked: neither its own changes, nor those of
// controllers.
func TestBadDeploymentOfOldGoesOn(t *testing.T) {
	s := newSpace(t, enabled)
	deployment := workloads["Deployment"](edgeTemplate(annotated("isthmus.dev/delivery", "pigeon")))
	world.door.lead()
	_, complaint, err := s.kubectl(deployment, "apply", "-f", "-")
	world.door.lead(world.server)
	require.NoError(t, err, complaint)
	require.Empty(t, complaint, "while no server answers, it passes without a word")
	counters := count(t)

	for _, c := range []struct {
		arguments []string
		calls     float64
		says      string
	}{
		{arguments: []string{"scale", "deployment", "edge", "--replicas=1"}},
		{arguments: []string{"label", "deployment", "edge", "team=edge"}},
		{arguments: []string{"annotate", "deployment", "edge", "isthmus.dev/delivery=pigeon"}},
		{arguments: []string{"patch", "deployment", "edge", "--patch", `{"spec":{"paused":true}}`}},
		{
			arguments: []string{"rollout", "restart", "deployment", "edge"}, calls: 1,
			says: `Warning: isthmus: new pods will be refused: invalid-override: pod template of Deployment edge: annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret` + "\n",
		},
		{arguments: []string{"scale", "deployment", "edge", "--replicas=0"}},
	} {
		if c.arguments[0] == "rollout" {
			_, complaint, err := s.kubectl(nil, "patch", "deployment", "edge", "--patch", `{"spec":{"paused":false}}`)
			require.NoError(t, err, complaint)
		}
		_, complaint, err := s.kubectl(nil, c.arguments...)
		require.NoError(t, err, complaint)
		assert.Equal(t, c.says, complaint, strings.Join(c.arguments, " "))
	}
	counters.grew(map[string]float64{"workload": 1})

	_, complaint, err = s.kubectl(nil, "set", "image", "deployment", "edge", "main=docker.io/emissaryingress/emissary:4.1.1")
	require.Error(t, err)
	assert.Contains(t, complaint, `pod template of Deployment edge: annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret`)
	_, complaint, err = s.kubectl(nil, "patch", "deployment", "edge", "--patch", `{"spec":{"template":{"metadata":{"annotations":{"isthmus.dev/delivery":"secret"}}}}}`)
	require.NoError(t, err, complaint)
	assert.Empty(t, complaint, "what is set right passes")
	_, complaint, err = s.kubectl(nil, "delete", "deployment", "edge", "--cascade=foreground")
	require.NoError(t, err, complaint)
}

// The controllers that make pods of a workload are not asked: its author was.
func TestControllersAreNotAsked(t *testing.T) {
	s := newSpace(t, enabled)
	counters := count(t)
	one := int32(1)
	deployment := workloads["Deployment"](edgeTemplate(annotated("isthmus.dev/delivry", "secret"))).(*appsv1.Deployment)
	deployment.Spec.Replicas = &one

	created, err := s.client.AppsV1().Deployments(s.name).Create(t.Context(), deployment, metav1.CreateOptions{})
	require.NoError(t, err)
	assert.Equal(t, []string{"isthmus: annotation isthmus.dev/delivry is not known and has no effect; did you mean isthmus.dev/delivery?"}, s.warnings.Drain())
	s.awaitPods(1)

	// A Job that is a CronJob's is one of a controller too.
	job := workloads["Job"](edgeTemplate(annotated("isthmus.dev/delivery", "pigeon"))).(*batchv1.Job)
	job.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(created, appsv1.SchemeGroupVersion.WithKind("Deployment"))}
	_, err = s.client.BatchV1().Jobs(s.name).Create(t.Context(), job, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	require.NoError(t, err)
	// An owner that is not its controller reviewed nothing.
	job.OwnerReferences[0].Controller = nil
	_, err = s.client.BatchV1().Jobs(s.name).Create(t.Context(), job, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	require.ErrorContains(t, err, "pod template of Job edge: ")

	// The ReplicaSet was made, and with it the Deployment's annotation and status.
	require.NoError(t, await(t.Context(), func(ctx context.Context) error {
		got, err := s.client.AppsV1().Deployments(s.name).Get(ctx, "edge", metav1.GetOptions{})
		if err == nil && (got.Annotations["deployment.kubernetes.io/revision"] == "" || got.Status.Replicas == 0) {
			err = fmt.Errorf("its controller has yet to write: %v %v", got.Annotations, got.Status)
		}
		return err
	}))
	counters.grew(map[string]float64{"workload": 2, "injected": 1})
}

// Whoever did not ask never leaves the API server.
func TestTemplateIsNotSent(t *testing.T) {
	no := annotated("isthmus.dev/inject", "false")
	plain, opted := newSpace(t), newSpace(t, enabled)
	excluded := spaceIn(t, excludedNamespace)
	excluded.setLabel("isthmus.dev/injection", "enabled")
	t.Cleanup(func() { excluded.setLabel("isthmus.dev/injection", "") })
	counters := count(t)

	for name, c := range map[string]struct {
		space    *space
		template corev1.PodTemplateSpec
	}{
		"nobody asked":              {plain, edgeTemplate()},
		"it says no":                {opted, edgeTemplate(no)},
		"it says no by its label":   {opted, edgeTemplate(labelled("isthmus.dev/inject", "false"))},
		"it says no in both":        {opted, edgeTemplate(no, labelled("isthmus.dev/inject", "false"))},
		"the namespace is excluded": {excluded, edgeTemplate(asks)},
	} {
		for kind, workload := range workloads {
			require.NoError(t, c.space.tryWorkload(workload(c.template)), "%s: %s", name, kind)
		}
	}
	require.NoError(t, opted.tryWorkload(workloads["Deployment"](edgeTemplate()))) // the sentinel
	counters.grew(map[string]float64{"workload": 1})
}
