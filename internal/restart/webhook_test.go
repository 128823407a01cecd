package restart

import (
	"testing"

	"github.com/stretchr/testify/assert"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestCheckWebhook(t *testing.T) {
	for name, test := range map[string]struct {
		// change changes the webhook's Deployment and the controller's.
		change func(webhook, controller *appsv1.Deployment)
		err    string
	}{
		"if both run the same, expect no problem": {func(_, _ *appsv1.Deployment) {}, ""},
		"if the webhook is being rolled out, expect that": {
			func(w, _ *appsv1.Deployment) { w.Status.UpdatedReplicas = 0 }, "Deployment isthmus-system/isthmus-webhook is not rolled out: 0 of 1 pods are updated",
		},
		"if the controller is being rolled out, expect that": {
			func(_, c *appsv1.Deployment) { c.Status.UpdatedReplicas = 0 }, "Deployment isthmus-system/isthmus-controller is not rolled out: 0 of 1 pods are updated",
		},
		"if the webhook has no replicas, expect that": {
			func(w, _ *appsv1.Deployment) { w.Spec.Replicas, w.Status = new(int32), appsv1.DeploymentStatus{} }, "Deployment isthmus-system/isthmus-webhook has no pod that is available",
		},
		"if the webhook has no container, expect that": {
			func(w, _ *appsv1.Deployment) { w.Spec.Template.Spec.Containers = nil }, "Deployment isthmus-system/isthmus-webhook has no container",
		},
		"if the images differ, expect both": {
			func(w, _ *appsv1.Deployment) { w.Spec.Template.Spec.Containers[0].Image = "isthmus:2" }, "the controller runs isthmus:1, settings a and the webhook isthmus:2, settings a",
		},
		"if the settings differ, expect both": {
			func(w, _ *appsv1.Deployment) { w.Spec.Template.Annotations[settingsChecksum] = "b" }, "the controller runs isthmus:1, settings a and the webhook isthmus:1, settings b",
		},
		"if there is no webhook, expect an error": {
			func(w, _ *appsv1.Deployment) { w.Name = "other" }, `read Deployment isthmus-system/isthmus-webhook: deployments.apps "isthmus-webhook" not found`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			deploymentOf := func(name string) *appsv1.Deployment {
				return &appsv1.Deployment{
					ObjectMeta: metav1.ObjectMeta{Namespace: "isthmus-system", Name: name},
					Spec: appsv1.DeploymentSpec{
						Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}},
						Template: corev1.PodTemplateSpec{
							ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{settingsChecksum: "a"}},
							Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "isthmus", Image: "isthmus:1"}}},
						},
					},
					Status: appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1},
				}
			}
			webhook, controller := deploymentOf(webhookDeployment), deploymentOf(controllerDeployment)
			test.change(webhook, controller)
			err := CheckWebhook(fake.NewClientset(webhook, controller), "isthmus-system")(t.Context())
			if test.err == "" {
				assert.NoError(t, err)
				return
			}
			assert.EqualError(t, err, test.err)
		})
	}
}
