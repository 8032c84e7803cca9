"""One line for each kind of `admission.kinds`: an object as its users write it, and the GPUs that its controllers would take."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
import yaml

from admission.charge import Charge
from admission.workloads import WORKLOADS, charge_object, charge_step, charge_tree
from core.errors import BadInput
from tests.unit.admission.reviews import GPU, TABLE


def gpus(number: Any) -> str:
    return f"{{containers: [{{name: main, image: a, resources: {{limits: {{nvidia.com/gpu: {number}}}}}}}]}}"


def read(version: str, kind: str, text: str) -> dict[str, Any]:
    body = yaml.safe_load(text)
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "x", "namespace": "team-a"}, **body}


ONE, TWO, FOUR, EIGHT = (gpus(number) for number in (1, 2, 4, 8))
RAY, BATCH, KSERVE = "ray.io/v1", "batch.volcano.sh/v1alpha1", "serving.kserve.io/v1beta1"
LLM, JOBSET, LWS = "serving.kserve.io/v1alpha1", "jobset.x-k8s.io/v1alpha2", "leaderworkerset.x-k8s.io/v1"
KUBEFLOW, TRAINER, ARGO, KNATIVE = (
    "kubeflow.org/v1",
    "trainer.kubeflow.org/v1alpha1",
    "argoproj.io/v1alpha1",
    "serving.knative.dev/v1",
)
NIM, VLLM, DYNAMO, SELDON = (
    "apps.nvidia.com/v1alpha1",
    "production-stack.vllm.ai/v1alpha1",
    "nvidia.com/v1alpha1",
    "machinelearning.seldon.io/v1",
)
KAITO = "kaito.sh/v1beta1"
RAW = "{name: x, annotations: {serving.kserve.io/deploymentMode: Standard}}"


def ray(group: str, more: str = "", head: str = "{containers: [{name: h, image: a}]}") -> str:
    return (
        f"{{headGroupSpec: {{template: {{spec: {head}}}}}, workerGroupSpecs: [{{{group}, template: {{spec: {FOUR}}}}}]{more}}}"
    )


COUNTED: list[tuple[str, str, str, str, int]] = [
    ("replicas", "v1", "ReplicationController", f"spec: {{replicas: 3, template: {{spec: {TWO}}}}}", 6),
    ("jobs times parallelism", JOBSET, "JobSet", f"spec: {{replicatedJobs: [{{replicas: 4, template: {{spec: {{parallelism: 2, template: {{spec: {FOUR}}}}}}}}}, {{template: {{spec: {{template: {{spec: {ONE}}}}}}}}}]}}", 33),
    ("completions bound", JOBSET, "JobSet", f"spec: {{replicatedJobs: [{{template: {{spec: {{parallelism: 8, completions: 2, template: {{spec: {ONE}}}}}}}}}]}}", 2),
    ("suspended", JOBSET, "JobSet", f"spec: {{suspend: true, replicatedJobs: [{{template: {{spec: {{template: {{spec: {ONE}}}}}}}}}]}}", 0),
    ("the Jobs' own suspend is overwritten", JOBSET, "JobSet", f"spec: {{replicatedJobs: [{{template: {{spec: {{suspend: true, template: {{spec: {ONE}}}}}}}}}]}}", 1),
    ("size times replicas", LWS, "LeaderWorkerSet", f"spec: {{replicas: 2, leaderWorkerTemplate: {{size: 4, workerTemplate: {{spec: {EIGHT}}}}}}}", 64),
    ("another leader", LWS, "LeaderWorkerSet", f"spec: {{replicas: 2, leaderWorkerTemplate: {{size: 4, leaderTemplate: {{spec: {ONE}}}, workerTemplate: {{spec: {EIGHT}}}}}}}", 50),
    ("defaults", LWS, "LeaderWorkerSet", f"spec: {{leaderWorkerTemplate: {{workerTemplate: {{spec: {EIGHT}}}}}}}", 8),
    ("replicas", RAY, "RayCluster", f"spec: {ray('replicas: 3')}", 12),
    ("hosts", RAY, "RayCluster", f"spec: {ray('replicas: 3, numOfHosts: 2')}", 24),
    ("a defaulted ceiling without the autoscaler", RAY, "RayCluster", f"spec: {ray('replicas: 3, minReplicas: 0, maxReplicas: 2147483647')}", 12),
    ("the ceiling with the autoscaler", RAY, "RayCluster", f"spec: {ray('replicas: 1, maxReplicas: 5', ', enableInTreeAutoscaling: true')}", 20),
    ("the floor", RAY, "RayCluster", f"spec: {ray('replicas: 0, minReplicas: 2')}", 8),
    ("no replicas", RAY, "RayCluster", f"spec: {ray('minReplicas: 2')}", 8),
    ("a suspended group", RAY, "RayCluster", f"spec: {ray('replicas: 2, suspend: true')}", 0),
    ("suspended", RAY, "RayCluster", f"spec: {ray('replicas: 2', ', suspend: true')}", 0),
    ("the head", RAY, "RayCluster", f"spec: {ray('replicas: 1', head=TWO)}", 6),
    ("cluster and submitter", RAY, "RayJob", f"spec: {{rayClusterSpec: {ray('replicas: 2')}, submitterPodTemplate: {{spec: {ONE}}}}}", 9),
    ("suspended", RAY, "RayJob", f"spec: {{suspend: true, rayClusterSpec: {ray('replicas: 2')}}}", 0),
    ("a cluster of its own", RAY, "RayService", f"spec: {{rayClusterConfig: {ray('replicas: 1, maxReplicas: 10')}}}", 4),
    ("master and workers", KUBEFLOW, "PyTorchJob", f"spec: {{pytorchReplicaSpecs: {{Master: {{template: {{spec: {EIGHT}}}}}, Worker: {{replicas: 3, template: {{spec: {EIGHT}}}}}}}}}", 32),
    ("elastic", KUBEFLOW, "PyTorchJob", f"spec: {{elasticPolicy: {{maxReplicas: 6}}, pytorchReplicaSpecs: {{Worker: {{replicas: 2, template: {{spec: {ONE}}}}}}}}}", 6),
    ("suspended", KUBEFLOW, "PyTorchJob", f"spec: {{runPolicy: {{suspend: true}}, pytorchReplicaSpecs: {{Worker: {{template: {{spec: {ONE}}}}}}}}}", 0),
    ("roles", KUBEFLOW, "TFJob", f"spec: {{tfReplicaSpecs: {{Chief: {{template: {{spec: {ONE}}}}}, Worker: {{replicas: 2, template: {{spec: {TWO}}}}}}}}}", 5),
    ("workers", "kubeflow.org/v2beta1", "MPIJob", f"spec: {{mpiReplicaSpecs: {{Launcher: {{template: {{spec: {{containers: [{{name: l}}]}}}}}}, Worker: {{replicas: 2, template: {{spec: {FOUR}}}}}}}}}", 8),
    ("workers", KUBEFLOW, "XGBoostJob", f"spec: {{xgbReplicaSpecs: {{Worker: {{replicas: 2, template: {{spec: {FOUR}}}}}}}}}", 8),
    ("workers", KUBEFLOW, "PaddleJob", f"spec: {{paddleReplicaSpecs: {{Worker: {{replicas: 2, template: {{spec: {FOUR}}}}}}}}}", 8),
    ("workers", KUBEFLOW, "JAXJob", f"spec: {{jaxReplicaSpecs: {{Worker: {{replicas: 2, template: {{spec: {FOUR}}}}}}}}}", 8),
    ("nodes", TRAINER, "TrainJob", "spec: {trainer: {numNodes: 4, resourcesPerNode: {limits: {nvidia.com/gpu: 8}}}}", 32),
    ("suspended", TRAINER, "TrainJob", "spec: {suspend: true, trainer: {numNodes: 4, resourcesPerNode: {limits: {nvidia.com/gpu: 8}}}}", 0),
    ("of the runtime", TRAINER, "TrainJob", "spec: {runtimeRef: {name: torch}}", 0),
    ("jobs at once", "keda.sh/v1alpha1", "ScaledJob", f"spec: {{maxReplicaCount: 3, jobTargetRef: {{parallelism: 2, template: {{spec: {TWO}}}}}}}", 12),
    ("jobs at once, unsaid", "keda.sh/v1alpha1", "ScaledJob", f"spec: {{jobTargetRef: {{template: {{spec: {ONE}}}}}}}", 100),
    ("without GPUs", TRAINER, "TrainingRuntime", "spec: {template: {spec: {replicatedJobs: [{template: {spec: {template: {spec: {containers: [{name: a}]}}}}}]}}}", 0),
    ("without GPUs", TRAINER, "ClusterTrainingRuntime", "spec: {template: {spec: {replicatedJobs: []}}}", 0),
    ("tasks", BATCH, "Job", f"spec: {{tasks: [{{replicas: 3, template: {{spec: {TWO}}}}}, {{template: {{spec: {ONE}}}}}]}}", 7),
    ("partitions", BATCH, "Job", f"spec: {{tasks: [{{replicas: 1, partitionPolicy: {{totalPartitions: 2, partitionSize: 4}}, template: {{spec: {TWO}}}}}]}}", 16),
    ("a canary without routing", ARGO, "Rollout", f"spec: {{replicas: 3, strategy: {{canary: {{steps: [{{setWeight: 20}}]}}}}, template: {{spec: {TWO}}}}}", 6),
    ("blue and green", ARGO, "Rollout", f"spec: {{replicas: 3, strategy: {{blueGreen: {{activeService: a}}}}, template: {{spec: {TWO}}}}}", 12),
    ("a canary beside the stable set", ARGO, "Rollout", f"spec: {{replicas: 3, strategy: {{canary: {{trafficRouting: {{}}, steps: [{{setCanaryScale: {{replicas: 5}}}}]}}}}, template: {{spec: {TWO}}}}}", 16),
    ("one container", ARGO, "Workflow", "spec: {entrypoint: a, templates: [{name: a, container: {resources: {limits: {nvidia.com/gpu: 2}}}}]}", 2),
    ("steps and items", ARGO, "Workflow", "spec: {entrypoint: m, templates: [{name: m, steps: [[{name: s, template: a, withItems: [1, 2, 3]}], [{name: t, template: a}]]}, {name: a, script: {resources: {limits: {nvidia.com/gpu: 2}}}}]}", 8),
    ("a graph and a sequence", ARGO, "Workflow", "spec: {entrypoint: m, templates: [{name: m, dag: {tasks: [{name: s, template: a, withSequence: {count: '4'}}]}}, {name: a, container: {resources: {limits: {nvidia.com/gpu: 1}}}, sidecars: [{name: s, resources: {limits: {nvidia.com/gpu: 1}}}]}]}", 8),
    ("bounded by parallelism", ARGO, "Workflow", "spec: {entrypoint: m, parallelism: 3, templates: [{name: m, steps: [[{name: s, template: a, withParam: x}]]}, {name: a, container: {resources: {limits: {nvidia.com/gpu: 2}}}}]}", 6),
    ("a template that is never called", ARGO, "Workflow", "spec: {entrypoint: a, templates: [{name: a, container: {image: b}}, {name: c, container: {resources: {limits: {nvidia.com/gpu: 2}}}}]}", 0),
    ("at the end", ARGO, "Workflow", "spec: {entrypoint: a, onExit: c, templates: [{name: a, container: {image: b}}, {name: c, container: {resources: {limits: {nvidia.com/gpu: 2}}}}]}", 2),
    ("one run at a time", ARGO, "CronWorkflow", "spec: {concurrencyPolicy: Forbid, workflowSpec: {entrypoint: a, templates: [{name: a, container: {resources: {limits: {nvidia.com/gpu: 2}}}}]}}", 2),
    ("without GPUs", ARGO, "WorkflowTemplate", "spec: {templates: [{name: a, container: {image: b}}]}", 0),
    ("without GPUs", ARGO, "ClusterWorkflowTemplate", "spec: {templates: []}", 0),
    ("max-scale", KNATIVE, "Service", f"spec: {{template: {{metadata: {{annotations: {{autoscaling.knative.dev/max-scale: '3'}}}}, spec: {TWO}}}}}", 6),
    ("max-scale", KNATIVE, "Configuration", f"spec: {{template: {{metadata: {{annotations: {{autoscaling.knative.dev/maxScale: '3', autoscaling.knative.dev/initial-scale: '5'}}}}, spec: {TWO}}}}}", 10),
    ("max-scale", KNATIVE, "Revision", f"{{metadata: {{name: x, annotations: {{autoscaling.knative.dev/max-scale: '2'}}}}, spec: {TWO}}}", 4),
    ("maxReplicas", KSERVE, "InferenceService", "spec: {predictor: {maxReplicas: 3, model: {modelFormat: {name: a}, resources: {limits: {nvidia.com/gpu: 2}}}}}", 6),
    ("standard, no maximum", KSERVE, "InferenceService", f"{{metadata: {RAW}, spec: {{predictor: {{minReplicas: 2, pytorch: {{resources: {{limits: {{nvidia.com/gpu: 2}}}}}}}}}}}}", 4),
    ("all components", KSERVE, "InferenceService", f"{{metadata: {RAW}, spec: {{predictor: {TWO}, transformer: {ONE}, explainer: {{art: {{resources: {{limits: {{nvidia.com/gpu: 1}}}}}}}}}}}}", 4),
    ("server beside containers", KSERVE, "InferenceService", f"{{metadata: {RAW}, spec: {{predictor: {{model: {{resources: {{limits: {{nvidia.com/gpu: 1}}}}}}, containers: [{{name: s, resources: {{limits: {{nvidia.com/gpu: 2}}}}}}]}}}}}}", 3),
    ("max-scale of the component", KSERVE, "InferenceService", "spec: {predictor: {annotations: {autoscaling.knative.dev/max-scale: '4'}, model: {resources: {limits: {nvidia.com/gpu: 1}}}}}", 4),
    ("without GPUs", KSERVE, "InferenceService", "spec: {predictor: {sklearn: {storageUri: 's3://a/b'}}}", 0),
    ("replicas", LLM, "LLMInferenceService", f"spec: {{replicas: 3, template: {TWO}}}", 6),
    ("data parallel groups and prefill", LLM, "LLMInferenceService", f"spec: {{replicas: 2, parallelism: {{data: 32, dataLocal: 8}}, template: {EIGHT}, worker: {EIGHT}, prefill: {{replicas: 1, parallelism: {{data: 16, dataLocal: 8}}, template: {EIGHT}, worker: {EIGHT}}}}}", 80),
    ("pipeline", LLM, "LLMInferenceService", f"spec: {{parallelism: {{pipeline: 3}}, template: {ONE}, worker: {TWO}}}", 5),
    ("scaling", LLM, "LLMInferenceService", f"spec: {{scaling: {{minReplicas: 1, maxReplicas: 4}}, template: {TWO}}}", 8),
    ("a base, all stated", LLM, "LLMInferenceService", f"spec: {{baseRefs: [{{name: b}}], replicas: 2, template: {ONE}}}", 2),
    ("without GPUs", LLM, "LLMInferenceServiceConfig", "spec: {template: {containers: [{name: main, image: a}]}}", 0),
    ("without GPUs", LLM, "ServingRuntime", "spec: {containers: [{name: kserve-container, image: a, resources: {limits: {cpu: 1}}}]}", 0),
    ("without GPUs", LLM, "ClusterServingRuntime", "spec: {containers: [{name: kserve-container, image: a}]}", 0),
    ("predictors and components", SELDON, "SeldonDeployment", f"spec: {{predictors: [{{replicas: 2, componentSpecs: [{{spec: {ONE}}}, {{replicas: 3, spec: {TWO}}}]}}]}}", 8),
    ("autoscaled", SELDON, "SeldonDeployment", f"spec: {{predictors: [{{componentSpecs: [{{hpaSpec: {{maxReplicas: 5}}, spec: {ONE}}}]}}]}}", 5),
    ("replicas", NIM, "NIMService", "spec: {replicas: 2, resources: {limits: {nvidia.com/gpu: 4}}}", 8),
    ("autoscaled", NIM, "NIMService", "spec: {replicas: 1, scale: {enabled: true, hpa: {maxReplicas: 3}}, resources: {limits: {nvidia.com/gpu: 1}}}", 3),
    ("groups", NIM, "NIMService", "spec: {replicas: 1, multiNode: {parallelism: {pipeline: 2, tensor: 8}}}", 16),
    ("groups of the first versions", NIM, "NIMService", "spec: {replicas: 2, multiNode: {size: 2, gpusPerPod: 8}, resources: {limits: {cpu: 1}}}", 32),
    ("services", NIM, "NIMPipeline", "spec: {services: [{spec: {replicas: 2, resources: {limits: {nvidia.com/gpu: 2}}}}, {enabled: false, spec: {resources: {limits: {nvidia.com/gpu: 8}}}}]}", 4),
    ("a template per node", KAITO, "Workspace", f"{{resource: {{count: 2}}, inference: {{template: {{spec: {ONE}}}}}}}", 2),
    ("a count and no name", VLLM, "VLLMRuntime", "spec: {deploymentConfig: {replicas: 2, resources: {gpu: '2'}}}", 4),
    ("a count beside a name", VLLM, "VLLMRuntime", "spec: {deploymentConfig: {resources: {gpu: '7', gpuType: nvidia.com/mig-1g.10gb}}}", 1),
    ("autoscaled", VLLM, "VLLMRuntime", "spec: {deploymentConfig: {replicas: 1, resources: {gpu: '1'}}, autoscalingConfig: {enabled: true, maxReplicas: 4}}", 4),
    ("of the first version", VLLM, "VLLMRuntime", "spec: {replicas: 3, resources: {gpu: '1'}}", 3),
    ("a router", VLLM, "VLLMRouter", "spec: {replicas: 2, resources: {gpu: '1'}}", 2),
    ("a cache", VLLM, "CacheServer", "spec: {resources: {cpu: 1}}", 0),
    ("services", DYNAMO, "DynamoGraphDeployment", "spec: {services: {Frontend: {replicas: 1}, Worker: {replicas: 2, resources: {limits: {gpu: '4'}}}}}", 8),
    ("groups", DYNAMO, "DynamoGraphDeployment", "spec: {services: {Worker: {multinode: {nodeCount: 2}, resources: {requests: {gpu: '8'}, limits: {gpu: '8'}}}}}", 16),
    ("the main container", DYNAMO, "DynamoGraphDeployment", "spec: {services: {Worker: {extraPodSpec: {mainContainer: {resources: {limits: {nvidia.com/gpu: 2}}}, containers: [{name: s, resources: {limits: {nvidia.com/gpu: 1}}}]}}}}", 3),
    ("components", "nvidia.com/v1beta1", "DynamoGraphDeployment", f"spec: {{components: [{{name: w, replicas: 2, podTemplate: {{spec: {TWO}}}}}]}}", 4),
    ("a component", DYNAMO, "DynamoComponentDeployment", "spec: {replicas: 3, resources: {limits: {gpu: '1'}}}", 3),
]  # fmt: skip

GPU_CONTAINER = "container: {resources: {limits: {nvidia.com/gpu: 1}}}"
REFUSED: list[tuple[str, str, str, str, str]] = [
    ("no maximum under the autoscaler", RAY, "RayCluster", f"spec: {ray('replicas: 1', ', enableInTreeAutoscaling: true')}", "maxReplicas"),
    ("a defaulted maximum under the autoscaler", RAY, "RayCluster", f"spec: {ray('maxReplicas: 2147483647', ', enableInTreeAutoscaling: true')}", "maxReplicas"),
    ("no head", RAY, "RayCluster", "spec: {}", "headGroupSpec"),
    ("the autoscaler's container", RAY, "RayCluster", f"spec: {ray('replicas: 1', ', autoscalerOptions: {resources: {limits: {amd.com/gpu: 1}}}')}", "price"),
    ("nodes unknown", TRAINER, "TrainJob", "spec: {trainer: {resourcesPerNode: {limits: {nvidia.com/gpu: 8}}}}", "numNodes"),
    ("a runtime with GPUs", TRAINER, "TrainingRuntime", f"spec: {{template: {{spec: {{replicatedJobs: [{{template: {{spec: {{template: {{spec: {ONE}}}}}}}}}]}}}}}}", "other objects"),
    ("a runtime with GPUs", TRAINER, "ClusterTrainingRuntime", f"spec: {{template: {{spec: {{replicatedJobs: [{{template: {{spec: {{template: {{spec: {ONE}}}}}}}}}]}}}}}}", "other objects"),
    ("a place that no row reads", TRAINER, "TrainJob", "spec: {podTemplateOverrides: [{spec: {containers: [{resources: {limits: {nvidia.com/gpu: 1}}}]}}]}", "none can be counted"),
    ("no maximum", KSERVE, "InferenceService", "spec: {predictor: {model: {resources: {limits: {nvidia.com/gpu: 1}}}}}", "maxReplicas"),
    ("a max-scale that KServe drops", KSERVE, "InferenceService", "{metadata: {name: x, annotations: {autoscaling.knative.dev/max-scale: '1'}}, spec: {predictor: {model: {resources: {limits: {nvidia.com/gpu: 1}}}}}}", "maxReplicas"),
    ("a canary", KSERVE, "InferenceService", "spec: {predictor: {canaryTrafficPercent: 10, maxReplicas: 1, model: {resources: {limits: {nvidia.com/gpu: 1}}}}}", "earlier revision"),
    ("multi-node", KSERVE, "InferenceService", "spec: {predictor: {model: {}, workerSpec: {tensorParallelSize: 2}}}", "multi-node"),
    ("an unknown server", KSERVE, "InferenceService", "spec: {predictor: {newserver: {resources: {limits: {nvidia.com/gpu: 1}}}}}", "none can be counted"),
    ("a runtime with GPUs", LLM, "ServingRuntime", f"spec: {ONE}", "other objects"),
    ("a runtime with GPUs", LLM, "ClusterServingRuntime", f"spec: {{containers: [], workerSpec: {ONE}}}", "other objects"),
    ("a configuration with GPUs", LLM, "LLMInferenceServiceConfig", f"spec: {{prefill: {{worker: {ONE}}}}}", "other objects"),
    ("a base that may set replicas", LLM, "LLMInferenceService", f"spec: {{baseRefs: [{{name: b}}], template: {ONE}}}", "baseRefs"),
    ("a base that may set the group's size", LLM, "LLMInferenceService", f"spec: {{baseRefs: [{{name: b}}], replicas: 1, template: {ONE}, worker: {ONE}}}", "baseRefs"),
    ("scaling without a maximum", LLM, "LLMInferenceService", f"spec: {{scaling: {{minReplicas: 1}}, template: {ONE}}}", "maxReplicas"),
    ("no maximum", KNATIVE, "Service", f"spec: {{template: {{spec: {ONE}}}}}", "max-scale"),
    ("a maximum of 0 is none", KNATIVE, "Service", f"spec: {{template: {{metadata: {{annotations: {{autoscaling.knative.dev/max-scale: '0'}}}}, spec: {ONE}}}}}", "max-scale"),
    ("an earlier revision", KNATIVE, "Service", f"spec: {{traffic: [{{revisionName: x-1, percent: 50}}], template: {{metadata: {{annotations: {{autoscaling.knative.dev/max-scale: '1'}}}}, spec: {ONE}}}}}", "earlier revision"),
    ("a maximum that is no number", KNATIVE, "Revision", f"{{metadata: {{annotations: {{autoscaling.knative.dev/max-scale: many}}}}, spec: {ONE}}}", "whole number"),
    ("no maximum", SELDON, "SeldonDeployment", f"spec: {{predictors: [{{componentSpecs: [{{hpaSpec: {{minReplicas: 1}}, spec: {ONE}}}]}}]}}", "maxReplicas"),
    ("GPUs of a profile", NIM, "NIMService", "spec: {replicas: 1, storage: {nimCache: {name: a}}}", "profile"),
    ("GPUs of a profile", NIM, "NIMPipeline", "spec: {services: [{spec: {replicas: 1}}]}", "profile"),
    ("no maximum", NIM, "NIMService", "spec: {scale: {enabled: true}, resources: {limits: {nvidia.com/gpu: 1}}}", "maximum"),
    ("on KServe, in the mode without a bound", NIM, "NIMService", "spec: {inferencePlatform: kserve, resources: {limits: {nvidia.com/gpu: 1}}}", "maximum"),
    ("a preset", KAITO, "Workspace", "{resource: {instanceType: Standard_NC24ads_A100_v4}, inference: {preset: {name: falcon-7b}}}", "preset"),
    ("a preset that tunes", KAITO, "Workspace", "{resource: {instanceType: Standard_NC24ads_A100_v4}, tuning: {preset: {name: falcon-7b}}}", "preset"),
    ("a name that is no accelerator's", VLLM, "VLLMRuntime", "spec: {deploymentConfig: {resources: {gpu: '1', gpuType: acme.example/thing}}}", "not known"),
    ("a name without a price", VLLM, "VLLMRuntime", "spec: {deploymentConfig: {resources: {gpu: '1', gpuType: amd.com/gpu}}}", "price"),
    ("half a GPU", VLLM, "VLLMRuntime", "spec: {deploymentConfig: {resources: {gpu: '0.5'}}}", "whole number"),
    ("no maximum", DYNAMO, "DynamoGraphDeployment", "spec: {services: {W: {autoscaling: {enabled: true}, resources: {limits: {gpu: '1'}}}}}", "maximum"),
    ("a name that is no accelerator's", DYNAMO, "DynamoComponentDeployment", "spec: {resources: {limits: {gpu: '1', gpuType: acme.example/thing}}}", "not known"),
    ("pods of another object", ARGO, "Rollout", "spec: {workloadRef: {kind: Deployment, name: a}}", "another object"),
    ("an experiment", ARGO, "Rollout", f"spec: {{strategy: {{canary: {{steps: [{{experiment: {{}}}}]}}}}, template: {{spec: {ONE}}}}}", "experiments"),
    ("fans out by a parameter", ARGO, "Workflow", f"spec: {{entrypoint: m, templates: [{{name: m, steps: [[{{name: s, template: a, withParam: x}}]]}}, {{name: a, {GPU_CONTAINER}}}]}}", "parallelism"),
    ("calls itself", ARGO, "Workflow", f"spec: {{entrypoint: m, templates: [{{name: m, steps: [[{{name: s, template: a}}, {{name: t, template: m}}]]}}, {{name: a, {GPU_CONTAINER}}}]}}", "parallelism"),
    ("a sequence by a parameter", ARGO, "Workflow", f"spec: {{entrypoint: m, templates: [{{name: m, dag: {{tasks: [{{name: s, template: a, withSequence: {{count: '{{{{x}}}}'}}}}]}}}}, {{name: a, {GPU_CONTAINER}}}]}}", "parallelism"),
    ("a patch of its pods", ARGO, "Workflow", "spec: {entrypoint: a, podSpecPatch: 'containers: [{resources: {limits: {nvidia.com/gpu: 8}}}]', templates: [{name: a, container: {image: b}}]}", "none can be counted"),
    ("runs that overlap", ARGO, "CronWorkflow", f"spec: {{workflowSpec: {{entrypoint: a, templates: [{{name: a, {GPU_CONTAINER}}}]}}}}", "overlap"),
    ("a template with GPUs", ARGO, "WorkflowTemplate", f"spec: {{templates: [{{name: a, {GPU_CONTAINER}}}]}}", "refer to it"),
    ("a template with GPUs", ARGO, "ClusterWorkflowTemplate", f"spec: {{templates: [{{name: a, {GPU_CONTAINER}}}]}}", "refer to it"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "kind", "text", "units"), [row[1:] for row in COUNTED], ids=[f"{r[2]}: {r[0]}" for r in COUNTED]
)
def test_kinds(version: str, kind: str, text: str, units: int) -> None:
    assert charge_object(read(version, kind, text), TABLE).gpu_shares == units * GPU


@pytest.mark.parametrize(
    ("version", "kind", "text", "said"), [row[1:] for row in REFUSED], ids=[f"{r[2]}: {r[0]}" for r in REFUSED]
)
def test_what_cannot_be_counted_in_a_known_kind_is_refused(version: str, kind: str, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        charge_object(read(version, kind, text), TABLE)


def test_every_kind_of_the_table_has_a_line_here() -> None:
    counted = {(version.rpartition("/")[0], kind) for _, version, kind, _, _ in COUNTED}
    elsewhere = {("", "Pod"), ("batch", "Job"), ("batch", "CronJob"), *(("apps", kind) for kind in ("Deployment", "StatefulSet", "ReplicaSet", "DaemonSet"))}  # fmt: skip
    assert WORKLOADS.keys() - elsewhere == counted


@pytest.mark.parametrize(
    "name", ["nvidia.com/gpu", "google.com/tpu", "aws.amazon.com/neuroncore", "only.in.configuration/board"]
)
def test_a_kind_invented_now_is_refused_wherever_its_accelerator_stands(name: str) -> None:
    kind = f"Kind{secrets.token_hex(4)}"
    table = {**TABLE, "only.in.configuration/board": GPU}
    found: dict[str, Any] = {
        "apiVersion": f"{secrets.token_hex(4)}.example/v1",
        "kind": kind,
        "spec": {"a": [{"b": [[{"c": 1}]]}]},
    }
    assert charge_object(found, table) == Charge()
    found["spec"]["a"][0]["b"][0].append({"deep": [{"limits": {name: "1"}}]})
    with pytest.raises(BadInput, match=kind):
        charge_object(found, table)


STEPS: dict[str, tuple[str, str, str, int]] = {
    "a group": (LWS, "LeaderWorkerSet", f"spec: {{replicas: 0, leaderWorkerTemplate: {{size: 4, workerTemplate: {{spec: {TWO}}}}}}}", 8),
    "workers, not the master": (KUBEFLOW, "PyTorchJob", f"spec: {{pytorchReplicaSpecs: {{Master: {{template: {{spec: {EIGHT}}}}}, Worker: {{template: {{spec: {ONE}}}}}}}}}", 1),
    "beyond what is elastic": (KUBEFLOW, "PyTorchJob", f"spec: {{elasticPolicy: {{maxReplicas: 6}}, pytorchReplicaSpecs: {{Worker: {{template: {{spec: {ONE}}}}}}}}}", 1),
    "both colours": (ARGO, "Rollout", f"spec: {{strategy: {{blueGreen: {{}}}}, template: {{spec: {TWO}}}}}", 4),
    "decode, not prefill": (LLM, "LLMInferenceService", f"spec: {{template: {ONE}, prefill: {{template: {EIGHT}}}}}", 1),
    "nodes of a group": (NIM, "NIMService", "spec: {multiNode: {parallelism: {pipeline: 2, tensor: 8}}}", 16),
    "a runtime": (VLLM, "VLLMRuntime", "spec: {deploymentConfig: {replicas: 1, resources: {gpu: '2'}}}", 2),
}  # fmt: skip


@pytest.mark.parametrize(("version", "kind", "text", "units"), STEPS.values(), ids=STEPS.keys())
def test_what_one_more_replica_holds(version: str, kind: str, text: str, units: int) -> None:
    found = read(version, kind, text)
    row = WORKLOADS[version.rpartition("/")[0], kind]
    step = charge_step(found, row, charge_tree(found, row, TABLE))
    assert step is not None
    assert step.gpu_shares == units * GPU


def test_no_step_where_nothing_is_scaled_or_held() -> None:
    for version, kind, text in (
        (RAY, "RayCluster", f"spec: {ray('replicas: 3')}"),
        (LWS, "LeaderWorkerSet", "spec: {leaderWorkerTemplate: {workerTemplate: {spec: {containers: []}}}}"),
    ):
        found, row = read(version, kind, text), WORKLOADS[version.rpartition("/")[0], kind]
        assert charge_step(found, row, charge_tree(found, row, TABLE)) is None
