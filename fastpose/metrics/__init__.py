"""Metrics as named protocols: key points (PCK, PCKh, OKS-AP), joints in space (MPJPE, 3DPCK, plausibility), generated
images (SSIM, LPIPS, IS, FID), generated poses (1-NN, retrieval, diversity), captions (R-precision, separation), persons
found again (mAP), user studies; results and their table."""

from fastpose.metrics import (
    accumulate,
    accumulate_3d,
    diversity,
    generative,
    heatmaps,
    image,
    keypoints_2d,
    keypoints_3d,
    lpips,
    oks,
    plausibility,
    pose_transfer,
    protocols,
    reid,
    report,
    retrieval,
    study,
    text_separation,
    two_sample,
)
from fastpose.metrics.accumulate import PCKAccumulator
from fastpose.metrics.accumulate_3d import MPJPEAccumulator, PCK3DAccumulator
from fastpose.metrics.generative import GenerativeAccumulator
from fastpose.metrics.image import ImageAccumulator
from fastpose.metrics.pose_transfer import DetectionScore, TransferPCKh
from fastpose.metrics.report import Result

__all__ = [
    "DetectionScore",
    "GenerativeAccumulator",
    "ImageAccumulator",
    "MPJPEAccumulator",
    "PCK3DAccumulator",
    "PCKAccumulator",
    "Result",
    "TransferPCKh",
    "accumulate",
    "accumulate_3d",
    "diversity",
    "generative",
    "heatmaps",
    "image",
    "keypoints_2d",
    "keypoints_3d",
    "lpips",
    "oks",
    "plausibility",
    "pose_transfer",
    "protocols",
    "reid",
    "report",
    "retrieval",
    "study",
    "text_separation",
    "two_sample",
]
