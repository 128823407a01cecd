package rbac

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// An attacker with the controller's token changes the caBundle of a webhook configuration,
// and nothing else of it.
func TestWebhookConfigurationsAreFenced(t *testing.T) {
	c := install(t, "")
	ctx := t.Context()
	attacker := c.clientFor(releaseNamespace, controllerName)
	patches := map[string]func(kubernetes.Interface, types.PatchType, string) error{
		"mutatingwebhookconfiguration": func(client kubernetes.Interface, patchType types.PatchType, patch string) error {
			_, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(ctx, "isthmus-injector", patchType, []byte(patch), metav1.PatchOptions{DryRun: dryRun})
			return err
		},
		"validatingwebhookconfiguration": func(client kubernetes.Interface, patchType types.PatchType, patch string) error {
			_, err := client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(ctx, "isthmus-injector", patchType, []byte(patch), metav1.PatchOptions{DryRun: dryRun})
			return err
		},
	}
	awaitDenial(t, webhookPolicy, func() error {
		return patches["mutatingwebhookconfiguration"](attacker, types.MergePatchType, `{"metadata":{"labels":{"x":"y"}}}`)
	})
	operation := func(op, path string, value any) string {
		raw, err := json.Marshal(value)
		require.NoError(t, err)
		return fmt.Sprintf(`[{"op":%q,"path":%q,"value":%s}]`, op, path, raw)
	}
	webhook := fields{
		"name": "mine.example.com", "sideEffects": "None", "admissionReviewVersions": []string{"v1"}, "clientConfig": fields{"url": "https://thief.example"},
		"rules": []any{fields{"operations": []string{"*"}, "apiGroups": []string{"*"}, "apiVersions": []string{"*"}, "resources": []string{"*/*"}}},
	}
	bundle := []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
	tests := map[string]struct {
		patch   string
		allowed bool
	}{
		"if it sets a caBundle, expect no refusal":              {operation("add", "/webhooks/0/clientConfig/caBundle", bundle), true},
		"if it sets another caBundle, expect no refusal":        {operation("add", "/webhooks/1/clientConfig/caBundle", bundle), true},
		"if it changes the rules, expect a refusal":             {operation("replace", "/webhooks/0/rules/0/resources", []string{"*"}), false},
		"if it adds a rule, expect a refusal":                   {operation("add", "/webhooks/0/rules/-", webhook["rules"].([]any)[0]), false},
		"if it sends objects to a URL, expect a refusal":        {operation("replace", "/webhooks/0/clientConfig", fields{"url": "https://thief.example"}), false},
		"if it names another Service, expect a refusal":         {operation("replace", "/webhooks/0/clientConfig/service/namespace", "thief"), false},
		"if it names another path, expect a refusal":            {operation("replace", "/webhooks/1/clientConfig/service/path", "/"), false},
		"if it changes the namespaceSelector, expect a refusal": {operation("replace", "/webhooks/0/namespaceSelector", fields{}), false},
		"if it changes the objectSelector, expect a refusal":    {operation("replace", "/webhooks/1/objectSelector", fields{"matchLabels": fields{"x": "y"}}), false},
		"if it removes the conditions, expect a refusal":        {operation("replace", "/webhooks/1/matchConditions", []any{}), false},
		"if it changes the failurePolicy, expect a refusal":     {`[{"op":"test","path":"/webhooks/0/sideEffects","value":"None"},{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"},{"op":"replace","path":"/webhooks/0/timeoutSeconds","value":29}]`, false},
		"if it changes the timeout, expect a refusal":           {operation("replace", "/webhooks/1/timeoutSeconds", 30), false},
		"if it renames a webhook, expect a refusal":             {operation("replace", "/webhooks/0/name", "x.isthmus.dev"), false},
		"if it adds a webhook, expect a refusal":                {operation("add", "/webhooks/-", webhook), false},
		"if it removes a webhook, expect a refusal":             {`[{"op":"remove","path":"/webhooks/0"}]`, false},
		"if it swaps two webhooks, expect a refusal":            {`[{"op":"move","from":"/webhooks/0","path":"/webhooks/1"}]`, false},
		"if it removes all webhooks, expect a refusal":          {operation("replace", "/webhooks", []any{}), false},
		"if it changes the labels, expect a refusal":            {operation("add", "/metadata/labels/x", "y"), false},
		"if it removes the labels, expect a refusal":            {`[{"op":"remove","path":"/metadata/labels"}]`, false},
		"if it annotates, expect a refusal":                     {operation("add", "/metadata/annotations", fields{"cert-manager.io/inject-ca-from": "kube-system/x"}), false},
		"if it adds an owner, expect a refusal":                 {operation("add", "/metadata/ownerReferences", []any{fields{"apiVersion": "v1", "kind": "Namespace", "name": "x", "uid": "x"}}), false},
		"if it adds a finalizer, expect a refusal":              {operation("add", "/metadata/finalizers", []string{"example.com/x"}), false},
	}
	for kind, patch := range patches {
		for name, test := range tests {
			t.Run(kind+": "+name, func(t *testing.T) {
				assert.NoError(t, patch(c.admin, types.JSONPatchType, test.patch), "the administrator is not restricted")
				err := patch(attacker, types.JSONPatchType, test.patch)
				if test.allowed {
					assert.NoError(t, err)
					return
				}
				assert.NoError(t, checkForbidden(err))
				assert.ErrorContains(t, err, "the controller may change the caBundle of each webhook of a configuration, and nothing else")
			})
		}
	}
}
