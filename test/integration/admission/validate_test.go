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

// workloads are the kinds that create pods, each with the given template.
var workloads = map[string]func(corev1.PodTemplateSpec) client.Object{
	"Deployment": func(t corev1.PodTemplateSpec) client.Object {
		return &appsv1.Deployment{TypeMeta: apps("Deployment"), ObjectMeta: edgeMeta, Spec: appsv1.DeploymentSpec{Replicas: new(int32), Selector: edgeSelector, Template: t}}
	},
	"DaemonSet": func(t corev1.PodTemplateSpec) client.Object {
		return &appsv1.DaemonSet{TypeMeta: apps("DaemonSet"), ObjectMeta: edgeMeta, Spec: appsv1.DaemonSetSpec{Selector: edgeSelector, Template: t}}
	},
	"StatefulSet": func(t corev1.PodTemplateSpec) client.Object {
		return &appsv1.StatefulSet{TypeMeta: apps("StatefulSet"), ObjectMeta: edgeMeta, Spec: appsv1.StatefulSetSpec{Replicas: new(int32), Selector: edgeSelector, Template: t}}
	},
	"ReplicaSet": func(t corev1.PodTemplateSpec) client.Object {
		return &appsv1.ReplicaSet{TypeMeta: apps("ReplicaSet"), ObjectMeta: edgeMeta, Spec: appsv1.ReplicaSetSpec{Replicas: new(int32), Selector: edgeSelector, Template: t}}
	},
	"ReplicationController": func(t corev1.PodTemplateSpec) client.Object {
		return &corev1.ReplicationController{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ReplicationController"}, ObjectMeta: edgeMeta,
			Spec: corev1.ReplicationControllerSpec{Replicas: new(int32), Selector: edgeSelector.MatchLabels, Template: &t}}
	},
	"Job": func(t corev1.PodTemplateSpec) client.Object {
		suspend := true
		t.Spec.RestartPolicy = corev1.RestartPolicyNever
		return &batchv1.Job{TypeMeta: batch("Job"), ObjectMeta: edgeMeta, Spec: batchv1.JobSpec{Suspend: &suspend, Template: t}}
	},
	"CronJob": func(t corev1.PodTemplateSpec) client.Object {
		t.Spec.RestartPolicy = corev1.RestartPolicyNever
		return &batchv1.CronJob{TypeMeta: batch("CronJob"), ObjectMeta: edgeMeta,
			Spec: batchv1.CronJobSpec{Schedule: "0 0 1 1 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: t}}}}
	},
}

var (
	edgeMeta     = metav1.ObjectMeta{Name: "edge"}
	edgeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": "edge"}}
)

func apps(kind string) metav1.TypeMeta  { return metav1.TypeMeta{APIVersion: "apps/v1", Kind: kind} }
func batch(kind string) metav1.TypeMeta { return metav1.TypeMeta{APIVersion: "batch/v1", Kind: kind} }

// templateOf returns the template of a pod.
func templateOf(pod *corev1.Pod) corev1.PodTemplateSpec {
	labelled("app", "edge")(pod)
	metadata := pod.ObjectMeta
	metadata.Name = ""
	return corev1.PodTemplateSpec{ObjectMeta: metadata, Spec: pod.Spec}
}

func edgeTemplate(changes ...func(*corev1.Pod)) corev1.PodTemplateSpec {
	return templateOf(edgePod("", changes...))
}

// named names the profile, without which the pod of a Job is not taken for an edge.
var named = annotated("isthmus.dev/profile", "emissary")

// kubectl apply shows the denial and the warnings that the workload's pods would get.
func TestApplyReportsWhatThePodsWouldGet(t *testing.T) {
	optedIn, notOptedIn := newNamespace(t, enabled), newNamespace(t)
	for kind, workload := range workloads {
		t.Run(kind, func(t *testing.T) {
			misspelt := edgeTemplate(named, annotated("isthmus.dev/delivry", "secret"))
			stdout, stderr, err := optedIn.kubectl(workload(misspelt), "apply", "--dry-run=server", "-f", "-")
			require.NoError(t, err, stderr)
			assert.Contains(t, stdout, "/edge created (server dry run)\n")
			assert.Equal(t, "Warning: isthmus: annotation isthmus.dev/delivry is not known and has no effect; did you mean isthmus.dev/delivery?\n", stderr)

			_, stderr, err = notOptedIn.kubectl(workload(edgeTemplate(labelled("isthmus.dev/inject", "yes"))), "apply", "-f", "-")
			require.Error(t, err)
			assert.Equal(t, `Error from server (Forbidden): error when creating "STDIN": admission webhook "pod.template.isthmus.dev" denied the request: `+
				`invalid-override: pod template of `+kind+` edge: label isthmus.dev/inject: "yes" is not allowed; want "true" or "false"`+"\n", stderr)

			assert.EqualError(t, optedIn.dryRunWorkload(workload(edgeTemplate(named, annotated("isthmus.dev/delivery", "pigeon")))),
				`admission webhook "namespace.template.isthmus.dev" denied the request: `+
					`invalid-override: pod template of `+kind+` edge: annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret`)
			assert.NoError(t, optedIn.dryRunWorkload(workload(edgeTemplate())))
		})
	}
}

// dryRunWorkload creates the workload as a server-side dry run.
func (s *testNamespace) dryRunWorkload(workload client.Object) error {
	s.t.Helper()
	workload.SetNamespace(s.name)
	return env.objectClient.Create(s.t.Context(), workload, client.DryRunAll)
}

// A workload is validated, not changed.
func TestTemplateIsNotChanged(t *testing.T) {
	notOptedIn, optedIn := newNamespace(t), newNamespace(t, enabled)
	deploy := func(s *testNamespace) *appsv1.Deployment {
		got, err := s.client.AppsV1().Deployments(s.name).Create(t.Context(), workloads["Deployment"](edgeTemplate()).(*appsv1.Deployment),
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		require.NoError(t, err)
		return got
	}
	assert.Equal(t, deploy(notOptedIn).Spec, deploy(optedIn).Spec)
}

// A workload from before Isthmus with an invalid template is not blocked: neither updates of
// its other fields nor those of controllers.
func TestExistingInvalidDeploymentIsNotBlocked(t *testing.T) {
	s := newNamespace(t, enabled)
	deployment := workloads["Deployment"](edgeTemplate(annotated("isthmus.dev/delivery", "pigeon")))
	env.service.setReplicas()
	_, stderr, err := s.kubectl(deployment, "apply", "-f", "-")
	env.service.setReplicas(env.server)
	require.NoError(t, err, stderr)
	require.Empty(t, stderr, "while no server answers, it is admitted without a warning")
	counters := snapshotCounters(t)

	for _, c := range []struct {
		arguments []string
		calls     float64
		warning   string
	}{
		{arguments: []string{"scale", "deployment", "edge", "--replicas=1"}},
		{arguments: []string{"label", "deployment", "edge", "team=edge"}},
		{arguments: []string{"annotate", "deployment", "edge", "isthmus.dev/delivery=pigeon"}},
		{arguments: []string{"patch", "deployment", "edge", "--patch", `{"spec":{"paused":true}}`}},
		{
			arguments: []string{"rollout", "restart", "deployment", "edge"}, calls: 1,
			warning: `Warning: isthmus: new pods will be refused: invalid-override: pod template of Deployment edge: annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret` + "\n",
		},
		{arguments: []string{"scale", "deployment", "edge", "--replicas=0"}},
	} {
		if c.arguments[0] == "rollout" {
			_, stderr, err := s.kubectl(nil, "patch", "deployment", "edge", "--patch", `{"spec":{"paused":false}}`)
			require.NoError(t, err, stderr)
		}
		_, stderr, err := s.kubectl(nil, c.arguments...)
		require.NoError(t, err, stderr)
		assert.Equal(t, c.warning, stderr, strings.Join(c.arguments, " "))
	}
	counters.assertGrowth(map[string]float64{"workload": 1})

	_, stderr, err = s.kubectl(nil, "set", "image", "deployment", "edge", "main=docker.io/emissaryingress/emissary:4.1.1")
	require.Error(t, err)
	assert.Contains(t, stderr, `pod template of Deployment edge: annotation isthmus.dev/delivery: "pigeon" is not allowed; want files or secret`)
	_, stderr, err = s.kubectl(nil, "patch", "deployment", "edge", "--patch", `{"spec":{"template":{"metadata":{"annotations":{"isthmus.dev/delivery":"secret"}}}}}`)
	require.NoError(t, err, stderr)
	assert.Empty(t, stderr, "a valid value is admitted")
	_, stderr, err = s.kubectl(nil, "delete", "deployment", "edge", "--cascade=foreground")
	require.NoError(t, err, stderr)
}

// Objects that controllers create are not validated: their workload was.
func TestControllersAreNotReviewed(t *testing.T) {
	s := newNamespace(t, enabled)
	counters := snapshotCounters(t)
	replicas := int32(1)
	deployment := workloads["Deployment"](edgeTemplate(annotated("isthmus.dev/delivry", "secret"))).(*appsv1.Deployment)
	deployment.Spec.Replicas = &replicas

	created, err := s.client.AppsV1().Deployments(s.name).Create(t.Context(), deployment, metav1.CreateOptions{})
	require.NoError(t, err)
	assert.Equal(t, []string{"isthmus: annotation isthmus.dev/delivry is not known and has no effect; did you mean isthmus.dev/delivery?"}, s.warnings.Drain())
	s.awaitPods(1)

	// A Job with a controller, such as that of a CronJob, is not validated.
	job := workloads["Job"](edgeTemplate(named, annotated("isthmus.dev/delivery", "pigeon"))).(*batchv1.Job)
	job.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(created, appsv1.SchemeGroupVersion.WithKind("Deployment"))}
	_, err = s.client.BatchV1().Jobs(s.name).Create(t.Context(), job, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	require.NoError(t, err)
	// A Job with an owner that is not its controller is validated.
	job.OwnerReferences[0].Controller = nil
	_, err = s.client.BatchV1().Jobs(s.name).Create(t.Context(), job, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	require.ErrorContains(t, err, "pod template of Job edge: ")

	// Wait for the updates of the Deployment's annotation and status by its controller.
	require.NoError(t, await(t.Context(), func(ctx context.Context) error {
		got, err := s.client.AppsV1().Deployments(s.name).Get(ctx, "edge", metav1.GetOptions{})
		if err == nil && (got.Annotations["deployment.kubernetes.io/revision"] == "" || got.Status.Replicas == 0) {
			err = fmt.Errorf("its controller has yet to write: %v %v", got.Annotations, got.Status)
		}
		return err
	}))
	counters.assertGrowth(map[string]float64{"workload": 2, "injected": 1})
}

// The API server does not send templates that are not opted in.
func TestTemplateIsNotSent(t *testing.T) {
	optOut := annotated("isthmus.dev/inject", "false")
	notOptedIn, optedIn := newNamespace(t), newNamespace(t, enabled)
	excluded := existingNamespace(t, excludedNamespace)
	excluded.setLabel("isthmus.dev/injection", "enabled")
	t.Cleanup(func() { excluded.setLabel("isthmus.dev/injection", "") })
	counters := snapshotCounters(t)

	for name, c := range map[string]struct {
		namespace *testNamespace
		template  corev1.PodTemplateSpec
	}{
		"nothing opts it in":         {notOptedIn, edgeTemplate()},
		"its annotation opts it out": {optedIn, edgeTemplate(optOut)},
		"its label opts it out":      {optedIn, edgeTemplate(labelled("isthmus.dev/inject", "false"))},
		"both opt it out":            {optedIn, edgeTemplate(optOut, labelled("isthmus.dev/inject", "false"))},
		"the namespace is excluded":  {excluded, edgeTemplate(optIn)},
	} {
		for kind, workload := range workloads {
			require.NoError(t, c.namespace.dryRunWorkload(workload(c.template)), "%s: %s", name, kind)
		}
	}
	require.NoError(t, optedIn.dryRunWorkload(workloads["Deployment"](edgeTemplate()))) // the sentinel
	counters.assertGrowth(map[string]float64{"workload": 1})
}
